"""``serve()``: runs a gRPC server of the mesh from startup to drained exit."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Container, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import grpc
import structlog
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from mesh.chassis import background as tasks
from mesh.chassis import telemetry
from mesh.chassis.background import background
from mesh.chassis.config import MeshSettings, SettingsError
from mesh.chassis.credentials.peer_certificates import check_own
from mesh.chassis.credentials.secret_files import SecretFileError
from mesh.chassis.credentials.tls import SvidFiles, SvidFilesError, server_credentials
from mesh.chassis.interceptors.peer import identify
from mesh.chassis.interceptors.pipeline import Pipeline
from mesh.chassis.telemetry.metrics import DEPENDENCY_UP
from mesh.chassis.tokens import RemoteKeys, TokenVerifier, fetch_over_http
from mesh.contract import policy
from mesh.contract.faults import Fault, PolicyError
from mesh.contract.policy import Mesh
from mesh.contract.wire import MESSAGE_BYTES

log = structlog.get_logger("server")

Register = Callable[[Any], None]
"""Adds a servicer to a server, as generated ``add_XServicer_to_server`` do."""
Check = Callable[[], Awaitable[bool]]
"""Whether a dependency of the service is available."""

CHECK_SECONDS = 2.0
GIVE_UP_SECONDS = 5.0
"""Timeout of a check; generous, since a slow dependency still serves."""
WATCH_SECONDS = 10.0
"""Interval between checks of an available watched dependency."""
ANSWER = timedelta(seconds=10)
"""How long the last response of a call may take after its deadline."""
OPTIONS = (
    ("grpc.max_concurrent_streams", 100),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # Bounds how long a connection can outlive its certificate.
    ("grpc.max_connection_age_ms", 300_000),
    ("grpc.so_reuseport", 0),
)


class ListenError(Exception):
    """The address cannot be bound; the message names it and says what to do."""


def _grace(mesh: Mesh) -> tuple[str, int]:
    """
    Return the option for how long calls may go on over a connection that has reached its age.

    A long-lived stream ends at its own lifetime, without an error. New calls use a new connection.
    """
    longest = max((method.deadline for method in mesh), default=timedelta())
    return "grpc.max_connection_age_grace_ms", int((longest + ANSWER) / timedelta(milliseconds=1))


class Server:
    """A gRPC server of the mesh; ``async with`` starts and drains it."""

    def __init__(
        self,
        settings: MeshSettings,
        register: Register,
        *,
        tokens: TokenVerifier | None = None,
        checks: Mapping[str, Check] | None = None,
        watched: Mapping[str, Check] | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        """Build the server.

        Args:
            settings: Where to listen and with which identity.
            register: Adds the servicers.
            tokens: Verifies user tokens; needed by methods with a session rule.
            checks: Dependencies by name; while one fails, health reports NOT_SERVING.
            watched: Dependencies that the service can partly do without; their checks are only
                measured.
            mesh: The policy model; default: that of the installed contracts.

        Raises:
            PolicyError: A registered method has no policy; the message names it.
            ListenError: The address cannot be bound.
            SvidFilesError: The SVID cannot be read, or must not be used by a workload.
        """
        self._settings = settings
        self._checks = dict(checks or {})
        self._watched = dict(watched or {})
        mesh = mesh or policy.load()
        self._pipeline = Pipeline(mesh, identify(settings), tokens, settings.transport)
        self._server = grpc.aio.server(options=(*OPTIONS, _grace(mesh)))
        self._services = self._register(register, mesh)
        self._health = grpc_health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*self._services, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        recorder = _Recorder()
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection.aio.ReflectionServicer(service_names=names), recorder
        )
        self._serve(recorder)
        self.port = self._bind()
        """The TCP port that was bound; 1 for a Unix socket."""

    def _register(self, register: Register, mesh: Mesh) -> tuple[str, ...]:
        """Add the servicers of *register*; return the names of their services."""
        recorder = _Recorder()
        register(recorder)
        faults = [
            Fault("AM001", f"{service}.{name}", "is served, but has no (amarre.mesh.v1.policy)")
            for service, handlers in recorder.services.items()
            for name in handlers
            if f"/{service}/{name}" not in mesh.by_path
        ]
        if faults:
            raise PolicyError(faults)
        for full_name, handlers in recorder.services.items():
            for name in handlers:
                gauge = telemetry.RPC_IN_FLIGHT.labels(mesh.by_path[f"/{full_name}/{name}"].service)
                gauge.set_function(lambda: self._pipeline.in_flight)
        self._serve(recorder)
        return tuple(recorder.services)

    def _serve(self, recorder: "_Recorder") -> None:
        for service, handlers in recorder.services.items():
            wrapped = {
                name: self._pipeline.wrap(f"/{service}/{name}", handler)
                for name, handler in handlers.items()
            }
            self._server.add_registered_method_handlers(service, wrapped)

    def _bind(self) -> int:
        address = self._settings.listen
        try:
            if address.startswith("unix:"):
                return self._server.add_insecure_port(address)
            credentials = server_credentials(SvidFiles(self._settings.svid_dir), check_own)
            return self._server.add_secure_port(address, credentials)
        except RuntimeError as exc:
            raise ListenError(
                f"Cannot listen on {address!r}: the port is in use or the address is not local. "
                "Stop the other program or set AMARRE_LISTEN to another HOST:PORT."
            ) from exc

    async def __aenter__(self) -> "Server":
        await self._server.start()
        self._tasks = contextlib.AsyncExitStack()
        await self._tasks.enter_async_context(background("health checks", self._keep_health))
        for name, check in self._watched.items():
            await self._tasks.enter_async_context(
                background(f"watch {name}", partial(_watch, name, check))
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Reject new calls; let those in flight finish within the drain timeout."""
        await self._tasks.aclose()
        await self._health.enter_graceful_shutdown()
        self._pipeline.end_open_streams()
        await self._server.stop(self._settings.drain_timeout.total_seconds())

    async def _keep_health(self) -> None:
        was: bool | None = None
        while True:
            held = await asyncio.gather(*(_holds(*check) for check in self._checks.items()))
            failing = [name for name, holds in zip(self._checks, held, strict=True) if not holds]
            failing += [task_name(task) for task in tasks.failing(critical=True)]
            await self._report_tasks()
            if was is not (not failing):
                was = not failing
                await self._set_health(serving=was)
                log.info("health", serving=was, failing=failing)
            await asyncio.sleep(CHECK_SECONDS)

    async def _report_tasks(self) -> None:
        """Report each background task to gRPC health under a name of its own."""
        failing = tasks.failing()
        for task in tasks.names():
            await self._health.set(task_name(task), _status(serving=task not in failing))

    async def _set_health(self, *, serving: bool) -> None:
        for name in ("", *self._services):
            await self._health.set(name, _status(serving=serving))


def task_name(task: str) -> str:
    """Return the name under which gRPC health reports a background task."""
    return f"background/{task}"


def _status(*, serving: bool) -> Any:
    status = health_pb2.HealthCheckResponse
    return status.SERVING if serving else status.NOT_SERVING


async def serve(
    service: str,
    settings: MeshSettings,
    register: Register,
    *,
    checks: Mapping[str, Check] | None = None,
    watched: Mapping[str, Check] | None = None,
    revoked: Container[str] = (),
) -> None:
    """Serve until SIGTERM or SIGINT, then drain without dropping admitted calls.

    Args:
        service: The short name, ``survey``; also the audience of its user tokens.
        settings: As for `Server`.
        register: As for `Server`.
        checks: As for `Server`.
        watched: As for `Server`.
        revoked: The sessions whose user tokens are rejected.

    Raises:
        PolicyError, ListenError, SvidFilesError: As for `Server`.
    """
    tokens = token_verifier(service, settings, revoked)
    async with Server(settings, register, tokens=tokens, checks=checks, watched=watched):
        log.info("serving", listen=settings.listen, transport=settings.transport)
        await until_stop_signal()
        log.info("draining")
    log.info("stopped")


def token_verifier(
    service: str, settings: MeshSettings, revoked: Container[str] = ()
) -> TokenVerifier:
    """Return a verifier of user tokens for *service* that uses the key set of Auth."""
    socket = str(settings.key_set_socket) if settings.key_set_socket else None
    return TokenVerifier(
        RemoteKeys(fetch_over_http(settings.key_set_url, socket)),
        audience=service,
        revoked=revoked,
    )


async def until_stop_signal() -> None:
    """Wait for SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def run(main: Callable[[], Awaitable[None]], service: str, settings: MeshSettings) -> None:
    """Run the *main* of a process; a start error is logged and exits with 2."""
    # A sidecar in another container accesses our Unix sockets through a shared group.
    os.umask(0o007)
    try:
        telemetry.start(service, settings)
        uvloop.run(_as_coroutine(main))
    except START_FAULTS as fault:
        log.error("cannot start", message=str(fault))  # noqa: TRY400 - a sentence, no traceback
        raise SystemExit(2) from fault


async def _as_coroutine(main: Callable[[], Awaitable[None]]) -> None:
    async with telemetry.running():
        await main()


async def _holds(name: str, check: Check) -> bool:
    try:
        async with asyncio.timeout(GIVE_UP_SECONDS):
            holds = await check()
    except Exception:
        holds = False
    DEPENDENCY_UP.labels(name).set(holds)
    return holds


async def _watch(name: str, check: Check) -> None:
    while True:
        pause = WATCH_SECONDS if await _holds(name, check) else CHECK_SECONDS
        await asyncio.sleep(pause)


class _Recorder:
    """Stand-in for a server while servicers register; keeps their handlers by service and name."""

    def __init__(self) -> None:
        self.services: dict[str, Mapping[str, Any]] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Do nothing: generated code registers the same handlers by method too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        self.services[service] = handlers


class StartError(Exception):
    """The process cannot start; the message says what to do."""


START_FAULTS: tuple[type[Exception], ...] = (
    PolicyError,
    ListenError,
    SvidFilesError,
    StartError,
    SecretFileError,
    SettingsError,
    telemetry.MetricsListenError,
)
