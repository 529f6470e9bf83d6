"""The files of the running Envoys, and what steers all of them: endpoints, weights, faults."""

import asyncio
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from mesh.contract import policy
from mesh.local.processes import envoy
from mesh.render.envoy import Endpoints, Files, Proxy, Traffic, files, live_files


class EnvoyConfig:
    """Writes what Envoys read; one mechanism, atomic moves, for all of it."""

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.endpoints: dict[str, tuple[str, ...]] = {}
        self._running: dict[str, Proxy] = {}

    async def prepare(self, proxies: Iterable[Proxy]) -> None:
        """
        Write all files of *proxies* and let Envoy check them.

        Raises:
            EnvoyError: Envoy rejects them; nothing was started.
        """
        folders = []
        for proxy in proxies:
            folder = Path(proxy.folder)
            shutil.rmtree(folder, ignore_errors=True)
            write(folder, files(policy.load(), proxy, self.endpoints, self.traffic))
            self._socket_folder(proxy)
            folders.append(folder)
            self._running[proxy.folder] = proxy
        await asyncio.gather(*(envoy.validate(folder) for folder in folders))

    def forget(self, proxy: Proxy) -> None:
        """Leave *proxy* alone from now on and remove its files."""
        self._running.pop(proxy.folder, None)
        shutil.rmtree(proxy.folder, ignore_errors=True)

    def steer(self, *, traffic: Traffic | None = None, endpoints: Endpoints | None = None) -> None:
        """Change weights, faults or endpoints in every Envoy; live within milliseconds."""
        if traffic is not None:
            self.traffic = traffic
        if endpoints is not None:
            self.endpoints = dict(endpoints)
        for proxy in self._running.values():
            live = live_files(policy.load(), proxy, self.endpoints, self.traffic)
            write(Path(proxy.folder), live)

    def _socket_folder(self, proxy: Proxy) -> None:
        """Make the folder of the sockets that a process and its Envoy share, and nobody else."""
        folder = Path(proxy.egress.removeprefix("unix:")).parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        for socket in folder.glob("*.sock"):
            socket.unlink()


def write(folder: Path, texts: Files) -> None:
    """Write files in one atomic step each, which is what Envoy watches for; same ones stay."""
    for name, text in texts.items():
        path = folder / name
        if path.exists() and path.read_text() == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(text)
        partial.replace(path)
