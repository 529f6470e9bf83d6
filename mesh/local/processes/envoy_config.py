"""Configuration files of the running Envoys: endpoints, weights, faults."""

import asyncio
import shutil
from collections.abc import Iterable
from pathlib import Path

import structlog

from mesh.contract import policy
from mesh.local.files import write_changed
from mesh.local.processes import envoy
from mesh.render.envoy import Endpoints, Files, Proxy, Traffic, files, live_files

log = structlog.get_logger("envoy config")


class EnvoyConfig:
    """The desired traffic settings, written to the files of every Envoy.

    Envoy reads a file when it is moved into place. A file that cannot be written, for example
    because the disk is full, is written later by `retry`.
    """

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.endpoints: dict[str, tuple[str, ...]] = {}
        self._running: dict[str, Proxy] = {}
        self._pending: dict[str, str] = {}
        """Why the files in a folder are out of date, by folder."""

    async def prepare(self, proxies: Iterable[Proxy]) -> None:
        """Write all files of *proxies* and let Envoy validate them.

        Raises:
            EnvoyError: Envoy rejects them, or they cannot be written; no Envoy was started.
        """
        folders = []
        for proxy in proxies:
            folder = Path(proxy.folder)
            shutil.rmtree(folder, ignore_errors=True)
            try:
                _write(folder, files(policy.load(), proxy, self.endpoints, self.traffic))
                for socket in _socket_folder(proxy).glob("*.sock"):
                    socket.unlink()
            except OSError as exc:
                raise envoy.EnvoyError(
                    f"The files of {proxy.name} cannot be written: {exc}"
                ) from exc
            folders.append(folder)
            self._running[proxy.folder] = proxy
        await asyncio.gather(*(envoy.validate(folder) for folder in folders))

    def restore(self, proxy: Proxy) -> None:
        """Write the files of *proxy* that were removed, before it or its process starts again.

        Raises:
            OSError: They cannot be written.
        """
        _write(Path(proxy.folder), files(policy.load(), proxy, self.endpoints, self.traffic))
        _socket_folder(proxy)

    def remove(self, proxy: Proxy) -> None:
        """Remove *proxy*, its files, and the sockets that it shared with its process."""
        self._running.pop(proxy.folder, None)
        self._pending.pop(proxy.folder, None)
        for folder in (proxy.folder, _shared(proxy)):
            shutil.rmtree(folder, ignore_errors=True)

    def apply(self, *, traffic: Traffic | None = None, endpoints: Endpoints | None = None) -> None:
        """Change weights, faults or endpoints in every Envoy; takes effect within milliseconds."""
        if traffic is not None:
            self.traffic = traffic
        if endpoints is not None:
            self.endpoints = dict(endpoints)
        for proxy in list(self._running.values()):
            self._apply(proxy)

    def retry(self) -> None:
        """Write the files that previously could not be written."""
        for folder in list(self._pending):
            self._apply(self._running[folder])

    def problems(self) -> list[str]:
        """Return one sentence for each Envoy whose files are out of date."""
        return list(self._pending.values())

    def _apply(self, proxy: Proxy) -> None:
        live = live_files(policy.load(), proxy, self.endpoints, self.traffic)
        try:
            _write(Path(proxy.folder), live)
        except OSError as exc:
            problem = f"The configuration of {proxy.name} is out of date: {exc}"
            if self._pending.get(proxy.folder) != problem:
                log.error("Envoy configuration not written", proxy=proxy.name, message=str(exc))  # noqa: TRY400 - a sentence
            self._pending[proxy.folder] = problem
        else:
            self._pending.pop(proxy.folder, None)


def _write(folder: Path, texts: Files) -> None:
    for name, text in texts.items():
        write_changed(folder / name, text)


def _socket_folder(proxy: Proxy) -> Path:
    """Create and return the folder of the sockets that a process shares only with its Envoy."""
    folder = _shared(proxy)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    return folder


def _shared(proxy: Proxy) -> Path:
    return Path(proxy.egress.removeprefix("unix:")).parent
