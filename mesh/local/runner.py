"""``amarre up``: prepares the data folder, starts every process, writes the ready file, drains."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import structlog

from mesh.chassis.background import background, failing
from mesh.chassis.telemetry import otlp
from mesh.chassis.telemetry.logs import configure_logs
from mesh.contract import policy
from mesh.control import ActionServer, serve_actions
from mesh.local import files
from mesh.local.addresses import HOST
from mesh.local.control.actions import ControlActions
from mesh.local.data_folder import DataFolder, DataFolderError
from mesh.local.folder_lock import FolderLock
from mesh.local.pki.certificate_authority import CertificateAuthority, issue_all
from mesh.local.processes import telemetry_variables
from mesh.local.processes.fleet import Fleet
from mesh.local.processes.fork_server import ForkServer
from mesh.local.processes.monitoring import Monitoring
from mesh.local.processes.plan import Options, Plan
from mesh.local.processes.port_allocator import is_free

NAME = "runner"
RETRY_SECONDS = 1.0

log = structlog.get_logger(NAME)


class PortsInUseError(Exception):
    """Some ports are in use; the message says which, what they are for and what to do."""


class Runner:
    """One local mesh."""

    def __init__(
        self,
        data_folder: DataFolder,
        options: Options,
        ready_file: Path | None,
        forks: ForkServer | None = None,
    ) -> None:
        """Plan a mesh in *data_folder* without starting or writing anything.

        Args:
            data_folder: The data folder of the mesh.
            options: What to run.
            ready_file: Additional path for the ready file.
            forks: Starts the mesh's Python processes; see `Fleet`.

        Raises:
            PlanError: The options ask for something that cannot be.
        """
        self.data_folder = data_folder
        self._lock = FolderLock(data_folder.lock)
        self.plan = Plan(data_folder, options)
        self.monitoring = Monitoring(data_folder, self.plan)
        self.plan.units += self.monitoring.units()
        self._ready_files = [data_folder.ready, *([ready_file] if ready_file else [])]
        self.fleet = Fleet(self.plan, self._changed, forks)
        self.actions = ControlActions(self.fleet, self.problems)
        self._stop, self._kill = asyncio.Event(), asyncio.Event()
        self._unpublished = ""
        """Why the ready file is out of date."""

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """Lock the data folder, check the ports, issue certificates.

        Raises:
            DataFolderError, AlreadyRunningError, PortsInUseError, CaError: As they say.
        """
        if not self.data_folder.data.exists():
            # Before anything is written, so that a failed start leaves nothing behind.
            self._check_ports()
        self.data_folder.prepare()
        self._lock.take()
        with contextlib.closing(self._lock):
            self._check_ports()
            try:
                authority = CertificateAuthority.load_or_create(self.data_folder.ca)
                issue_all(authority, self.data_folder.certs)
                self.monitoring.prepare()
            except OSError as exc:
                raise DataFolderError(
                    f"The data folder {self.data_folder.data} cannot be written: {exc}"
                ) from exc
            try:
                yield
            finally:
                for path in self._ready_files:
                    with contextlib.suppress(OSError):
                        path.unlink(missing_ok=True)
                if not self._lock.problem:
                    shutil.rmtree(self.data_folder.sockets, ignore_errors=True)

    def _check_ports(self) -> None:
        taken = [
            f"  {port} needed by {name}"
            for port, name in sorted(self.plan.ports_in_use().items())
            if not is_free(port)
        ]
        if taken:
            raise PortsInUseError(
                "These ports of 127.0.0.1 or ::1 are in use:\n"
                + "\n".join(taken)
                + "\nStop the programs that hold them (`ss -ltnp` shows them) or choose another "
                "range: amarre up --port-base 4000"
            )

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Run until SIGINT, SIGTERM or SIGHUP, then drain; SIGQUIT or a second SIGINT kills.

        Raises:
            StartFailedError: A process did not become ready; all have been stopped.
        """
        # Colour is disabled when output is not a terminal.
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
        configure_logs(NAME, NAME, "INFO", renderer=renderer)
        # The audit log and restarts are exported with the logs of the mesh.
        variables = telemetry_variables.with_default(os.environ, self.plan.addresses.otlp)
        otlp.start_logs(NAME, NAME, "development", variables)
        self._handle_signals()
        starting = asyncio.ensure_future(self.fleet.start())
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await self._serve(on_ready)
        finally:
            stopped.cancel()
            starting.cancel()
            await self._end(starting)

    async def _serve(self, on_ready: Callable[[], None]) -> None:
        actions = self.actions
        async with (
            serve_actions(
                self.data_folder.control, actions.by_name(), actions.audit_log.record
            ) as server,
            background("certificate renewal", actions.keep_certificates_fresh),
            background("writing of pending files", partial(self._retry, server)),
        ):
            self._changed()
            on_ready()
            await self._stop.wait()
            await actions.close()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGQUIT, self._quit)
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        # nohup ignores SIGHUP, so that the program survives its terminal.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, self._stop.set)

    def _interrupt(self) -> None:
        if self._stop.is_set():
            self._kill.set()
        else:
            click.echo("Draining … (Ctrl-C again stops at once)", err=True)
            self._stop.set()

    def _quit(self) -> None:
        click.echo("Stopping at once …", err=True)
        self._stop.set()
        self._kill.set()

    async def _end(self, starting: asyncio.Future[None]) -> None:
        """Drain and stop everything; kill it as soon as a second SIGINT arrives."""
        draining = asyncio.ensure_future(self._drain(starting))
        killing = asyncio.ensure_future(self._kill.wait())
        await asyncio.wait({draining, killing}, return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            self.fleet.supervisor.kill()
        killing.cancel()
        await draining

    async def _drain(self, starting: asyncio.Future[None]) -> None:
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await starting
        exported = asyncio.Event()
        loop = asyncio.get_running_loop()

        def export() -> None:
            otlp.stop()
            with contextlib.suppress(RuntimeError):  # The loop may have ended meanwhile.
                loop.call_soon_threadsafe(exported.set)

        # A daemon: a killed program does not wait for its last log lines.
        threading.Thread(target=export, daemon=True).start()
        waiting = [asyncio.ensure_future(event.wait()) for event in (exported, self._kill)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            one.cancel()
        with contextlib.suppress(OSError):
            # What stops now is not an incident.
            self.monitoring.follow(())
        await self.fleet.stop()

    def _changed(self) -> None:
        """Publish the current state; if that fails, `_retry` tries again."""
        try:
            self.write_ready_file()
            self.monitoring.follow(self.fleet.units.values())
        except OSError as exc:
            if str(exc) != self._unpublished:
                log.error("ready file not written", message=str(exc))  # noqa: TRY400 - a sentence
            self._unpublished = str(exc)
        else:
            self._unpublished = ""

    async def _retry(self, server: ActionServer) -> None:
        """Create files that were removed, and write those that could not be written before, for
        example because the disk was full.
        """
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            self.fleet.proxies.retry()
            self.actions.audit_log.retry()
            if self._unpublished or not all(path.exists() for path in self._ready_files):
                self._changed()
            if self._lock.keep():
                self.data_folder.make_folders()
                await server.listen()

    @property
    def killed(self) -> bool:
        """Whether SIGQUIT or a second SIGINT ended the mesh without a drain."""
        return self._kill.is_set()

    def problems(self) -> list[str]:
        """Return the current problems, one sentence each."""
        ready_file = f"The ready file cannot be written: {self._unpublished}"
        return [
            *([ready_file] if self._unpublished else []),
            *([self._lock.problem] if self._lock.problem else []),
            *self.fleet.problems(),
            *self.actions.audit_log.problems(),
            *(f"The background task {name!r} fails and is restarted." for name in failing()),
        ]

    def ready(self) -> dict[str, Any]:
        """Return the content of the ready file."""
        plan, data_folder = self.plan, self.data_folder
        gateway = data_folder.certs / "gateway"
        return {
            "urls": plan.addresses.urls(),
            "grpc": {name: f"{HOST}:{plan.service_ports(name)[0]}" for name in policy.SERVICES},
            "processes": [
                {
                    "name": name,
                    "kind": str(unit.kind),
                    "replica": unit.replica,
                    "pid": child.pid,
                    "ready_ms": child.ready_ms,
                }
                for name, child in self.fleet.supervisor.children.items()
                if (unit := self.fleet.units.get(name))
            ],
            "sandbox": {
                "api_url": f"{plan.addresses.urls()['sandbox']}/api/",
                "token": data_folder.read_secret("redcap-token"),
                "super_token": data_folder.read_secret("redcap-super-token"),
            },
            "console": {"token": data_folder.read_secret("console-token")},
            "pki": {
                "ca": str(gateway / "ca.crt"),
                "gateway_cert": str(gateway / "tls.crt"),
                "gateway_key": str(gateway / "tls.key"),
            },
            "version": metadata.version("amarre-mesh"),
        }

    def write_ready_file(self) -> None:
        """Write the ready file; only the current user can read it, because it contains tokens.

        Raises:
            OSError: It cannot be written.
        """
        text = json.dumps(self.ready(), indent=2)
        for path in self._ready_files:
            files.write(path, text)


def check_ready_file(path: Path) -> Path:
    """Return *path* as an absolute path, after checking that it can be written.

    Raises:
        DataFolderError: It cannot.
    """
    path = path.resolve()
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK) or path.is_dir():
        raise DataFolderError(
            f"The ready file {path} cannot be written. Name a file in a folder that exists."
        )
    return path
