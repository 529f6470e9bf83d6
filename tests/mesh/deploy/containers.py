"""Entry points run like in a container, without a container engine."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from mesh.render import deployment
from mesh.render.deployment import SOCKETS, Deployment, Workload
from mesh.render.environment import SECRETS, Place, environment, probe_command

USER = 54_321
"""No user of this machine: Kubernetes and OpenShift give what they like."""
READY_SECONDS = 30.0
PLACE = Place(
    site="https://amarre.example.org",
    address=lambda workload: f"unix:{SOCKETS}/egress.sock",
    authority="auth",
    collector="http://127.0.0.1:4317",
    namespace="amarre",
    key_set_socket=f"{SOCKETS}/keys.sock",
)


def as_another_user() -> list[str]:
    """
    Return a command that runs another with a random user id, with read-only access.

    Empty where this user cannot change identity; then code stays as writable as it is.
    """
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        return []
    can_read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *can_read]


def give(path: Path) -> None:
    """Make the container's user the owner of *path*, like a volume."""
    if os.getuid() == 0:
        os.chown(path, USER, USER)


class Container:
    """The paths and variables of one workload, moved from the image to *folder*."""

    def __init__(self, deployed: Deployment, workload: Workload, folder: Path) -> None:
        self.workload = workload
        self.run = folder / "run"
        self.secrets = folder / "secrets"
        for path in (folder, self.run, self.secrets):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
        give(self.run)
        declared = environment(deployed, workload, PLACE)
        self.environment = {key: self._moved(value) for key, value in declared.items()}
        self.probe = [self._moved(part) for part in probe_command(workload)]

    def _moved(self, text: str) -> str:
        return text.replace(SOCKETS, str(self.run)).replace(SECRETS, str(self.secrets))

    def secret(self, name: str, text: str) -> None:
        """Put a secret where the container finds it, readable but not writable."""
        path = self.secrets / name
        path.write_text(text)
        path.chmod(0o440)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run the entry point with only the declared variables."""
        module = self.workload.process.module
        async with running(["-m", module], self.environment, self.run) as process:
            yield process

    async def is_ready(self) -> bool:
        """Run the health check of the image once."""
        check = await asyncio.create_subprocess_exec(
            *as_another_user(), sys.executable, *self.probe[1:], env=dict(self.environment)
        )
        return await check.wait() == 0


@contextlib.asynccontextmanager
async def running(
    arguments: list[str], environment: Mapping[str, str], folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run Python as the container's user while the body runs; kill it if it is still running."""
    process = await asyncio.create_subprocess_exec(
        *as_another_user(),
        sys.executable,
        *arguments,
        env={"PYTHONDONTWRITEBYTECODE": "1", **environment},
        cwd="/",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=2**20,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()


async def until_ready(container: Container, process: asyncio.subprocess.Process) -> bool:
    """Run the health check until it is ready, the process ends, or time is up."""
    ends = time.monotonic() + READY_SECONDS
    while time.monotonic() < ends and process.returncode is None:
        if any(container.run.iterdir()) and await container.is_ready():
            return True
        await asyncio.sleep(0.05)
    return False


def load() -> Deployment:
    """Return the deployment."""
    from mesh.contract import policy

    return deployment.load(policy.load())
