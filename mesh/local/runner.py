"""
``amarre up``: prepares the data folder, starts every process, writes the ready file, drains.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import structlog

from mesh.chassis.telemetry import otlp
from mesh.chassis.telemetry.logs import configure_logs
from mesh.control import serve_actions
from mesh.local.addresses import HOST
from mesh.local.control.actions import ControlActions
from mesh.local.data_folder import DataFolder, DataFolderError
from mesh.local.pki.certificate_authority import CertificateAuthority, issue_all
from mesh.local.processes.fleet import Fleet
from mesh.local.processes.monitoring import Monitoring
from mesh.local.processes.plan import Options, Plan

NAME = "runner"

log = structlog.get_logger(NAME)


class PortsInUseError(Exception):
    """Some ports are taken; the message says which, who wants them and what to do."""


class AlreadyRunningError(Exception):
    """A mesh runs from this data folder already."""


class Runner:
    """One local mesh."""

    def __init__(self, layout: DataFolder, options: Options, ready_file: Path | None) -> None:
        """
        Plan a mesh below *layout*; nothing is started and nothing written yet.

        Raises:
            PlanError: The options ask for something that cannot be.
        """
        self.layout = layout
        self.plan = Plan(layout, options)
        self.monitoring = Monitoring(layout, self.plan)
        self.plan.units += self.monitoring.units()
        self._ready_files = [layout.ready, *([ready_file] if ready_file else [])]
        self.fleet = Fleet(self.plan, self._changed)
        self.actions = ControlActions(self.fleet)

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """
        Hold the data folder, check the ports, issue certificates.

        Raises:
            DataFolderError, AlreadyRunningError, PortsInUseError, CaError: As they say.
        """
        self.layout.prepare()
        with self._locked():
            self._check_ports()
            authority = CertificateAuthority.load_or_create(self.layout.ca)
            issue_all(authority, self.layout.certs)
            self.monitoring.prepare()
            try:
                yield
            finally:
                for path in self._ready_files:
                    path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self.layout.lock.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                raise AlreadyRunningError(
                    f"A mesh runs from {self.layout.data} already. Stop it with Ctrl-C where it "
                    "runs, or start another one with --data DIR --port-base PORT."
                ) from exc
            yield

    def _check_ports(self) -> None:
        taken = [
            f"  {port} wanted by {name}"
            for port, name in sorted(self.plan.ports_in_use().items())
            if not is_free(port)
        ]
        if taken:
            raise PortsInUseError(
                "These ports of 127.0.0.1 are in use:\n"
                + "\n".join(taken)
                + "\nStop the programs that hold them (`ss -ltnp` shows them) or choose another "
                "range: amarre up --port-base 4000"
            )

    async def run(self, on_ready: Any) -> None:
        """
        Run until SIGINT or SIGTERM, then drain.

        Raises:
            StartFailedError: A process did not become ready; all have been stopped.
        """
        # Colours are for people; a file or a pipe gets plain lines.
        people = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
        configure_logs(NAME, NAME, "INFO", renderer=people)
        # Among the logs of all others: who ordered what, what died and was started again.
        otlp.start_logs(NAME, NAME, "development", f"http://{self.plan.site.collector}")
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        starting = asyncio.ensure_future(self.fleet.start())
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                async with (
                    serve_actions(
                        self.layout.control, self.actions.by_name(), self.actions.audit_log.record
                    ),
                    asyncio.TaskGroup() as group,
                ):
                    renewing = group.create_task(self.actions.keep_certificates_fresh())
                    self._changed()
                    on_ready()
                    await stop.wait()
                    renewing.cancel()
                    await self.actions.close()
        finally:
            stopped.cancel()
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await starting
            await asyncio.to_thread(otlp.stop)
            await self.fleet.stop()

    def _changed(self) -> None:
        """Tell everybody outside what runs now."""
        self.write_ready_file()
        self.monitoring.follow(self.fleet.units.values())

    def ready(self) -> dict[str, Any]:
        """Return the content of the ready file."""
        plan, layout = self.plan, self.layout
        gateway = layout.certs / "gateway"
        return {
            "urls": plan.site.urls(),
            "grpc": {
                name: f"{HOST}:{plan.service_ports(name)[0]}"
                for name in ("auth", "survey", "health")
            },
            "processes": [
                {
                    "name": name,
                    "kind": str(self.fleet.units[name].kind),
                    "replica": self.fleet.units[name].replica,
                    "pid": child.pid,
                    "ready_ms": child.ready_ms,
                }
                for name, child in self.fleet.supervisor.children.items()
            ],
            "sandbox": {
                "api_url": f"{plan.site.urls()['sandbox']}/api/",
                "token": layout.read_secret("redcap-token"),
                "super_token": layout.read_secret("redcap-super-token"),
            },
            "console": {"token": layout.read_secret("console-token")},
            "pki": {
                "ca": str(gateway / "ca.crt"),
                "gateway_cert": str(gateway / "tls.crt"),
                "gateway_key": str(gateway / "tls.key"),
            },
            "version": metadata.version("amarre-mesh"),
        }

    def write_ready_file(self) -> None:
        """Write what runs, at once and readable by this user alone: it holds tokens."""
        text = json.dumps(self.ready(), indent=2)
        for path in self._ready_files:
            partial = path.with_name(f".{path.name}.{os.getpid()}")
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            partial.replace(path)


def check_ready_file(path: Path) -> Path:
    """
    Return *path*, absolute, once it is sure that it can be written.

    Raises:
        DataFolderError: It cannot.
    """
    path = path.resolve()
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK) or path.is_dir():
        raise DataFolderError(
            f"The ready file {path} cannot be written. Name a file in a folder that exists."
        )
    return path


def is_free(port: int) -> bool:
    """Say whether a server could listen on *port* of 127.0.0.1 now."""
    with socket.socket() as attempt:
        # As servers do, so that the ports of connections that have ended do not count.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((HOST, port))
        except OSError:
            return False
    return True
