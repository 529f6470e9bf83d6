"""
Real faults, and the alerts that each of them must fire.

Faults of one chain follow one another, since the alert of one would inhibit that of another; chains
run side by side.
"""

import asyncio
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import grpc
import httpx
from amarre.survey.v1 import survey_service_pb2 as survey
from amarre.survey.v1.survey_service_pb2_grpc import SurveyServiceStub

from mesh import topology
from mesh.chassis.testing import free_port
from tests.auth_svc.test_program import environment
from tests.e2e import faults as e2e
from tests.observability.servers import running, wait_for
from tests.production.telemetry import machine
from tests.production.telemetry.patient import Patient, repeated
from tests.production.telemetry.sign_in_faults import (
    guessed_links,
    locked_database,
    silent_mail_server,
)

STREAMS = 24
"""Event streams of one client, which may have 20."""


@dataclass(frozen=True)
class Fault:
    """A fault, active within its context, and its alerts."""

    name: str
    inject: Callable[[Patient], AbstractContextManager[None]]
    alerts: frozenset[str]


def _fault(inject: Callable[[Patient], AbstractContextManager[None]], *alerts: str) -> Fault:
    name = " ".join(getattr(inject, "__name__", "fault").split("_"))
    return Fault(name, inject, frozenset(alerts))


@contextmanager
def wrong_methods(patient: Patient) -> Iterator[None]:
    """
    Methods that fail or are slow: one that an older Survey lacks, one that always fails, and lists
    and states some of which take too long.
    """
    with (
        patient.injected("survey.GetLink", abort="UNIMPLEMENTED"),
        patient.injected("survey.GetPdf", abort="INTERNAL"),
        patient.injected("survey.ListRequests", delay_ms=1500, percent=15),
        patient.injected("health.GetStatus", delay_ms=700, percent=15),
    ):
        yield


def slow_redcap(patient: Patient) -> AbstractContextManager[None]:
    """A REDCap that takes longer than a second."""
    return e2e.redcap(patient.mesh, latency_ms=1500)


def unreliable_redcap(patient: Patient) -> AbstractContextManager[None]:
    """A REDCap that fails often, but rarely eight times in a row."""
    return e2e.redcap(patient.mesh, mode="500", error_rate=0.4)


def failing_redcap(patient: Patient) -> AbstractContextManager[None]:
    """A REDCap that answers every request with 500."""
    return e2e.redcap(patient.mesh, mode="500", error_rate=1.0)


def hung_service(patient: Patient) -> AbstractContextManager[None]:
    """A process of Survey that hangs."""
    return e2e.hung(patient.mesh, "survey")


@contextmanager
def silent_identity_provider(patient: Patient) -> Iterator[None]:
    """An Auth whose Appwrite hangs. Its alert inhibits GatewayErrors, which comes first."""
    folder = patient.site.folder / "appwrite"
    folder.mkdir()
    address, metrics = (f"127.0.0.1:{free_port()}" for _ in range(2))
    key = folder / "api-key"
    command = (sys.executable, "-m", "sandbox.appwrite", "--listen", address)
    smtp = patient.mesh.ready["urls"]["app"].rpartition(":")[2]
    variables = {
        "AMARRE_INSTANCE": "auth-appwrite",
        "AMARRE_METRICS_LISTEN": metrics,
        "AMARRE_AUTH_SMTP_URL": f"smtp://127.0.0.1:{int(smtp) + topology.SMTP}",
        "AMARRE_AUTH_PROVIDER": "appwrite",
        "AMARRE_AUTH_APPWRITE_ENDPOINT": f"http://{address}/v1",
        "AMARRE_AUTH_APPWRITE_PROJECT": "amarre",
        "AMARRE_AUTH_APPWRITE_KEY_FILE": str(key),
    }
    certificates = patient.site.mesh.data / "certs"
    auth_command = (sys.executable, "-m", "auth_svc")
    with running(*command, "--key-file", str(key), log=folder / "appwrite.log") as appwrite:
        wait_for("Appwrite", lambda: httpx.get(f"http://{address}/v1/health", trust_env=False))
        whole = environment(folder, certificates, **variables)
        with running(*auth_command, log=folder / "auth.log", env=whole):
            wait_for("Auth", lambda: httpx.get(f"http://{metrics}/metrics", trust_env=False))
            wait_for("GatewayErrors", lambda: "GatewayErrors" in patient.site.mailed())
            with patient.scraped("auth-appwrite", "auth", metrics), e2e.stopped(appwrite.pid):
                yield


@contextmanager
def bad_release(patient: Patient) -> Iterator[None]:
    """A canary that fails, blocks its event loop and burns its processor."""
    command = shlex.join([sys.executable, "-m", "tests.production.telemetry.defective_survey"])
    start = ("canary", "start", "survey", "--weight", "1", "--manual", "--command", command)
    patient.mesh.amarre(*start)
    try:

        async def calls() -> None:
            async with patient.calls("survey") as channel:
                for _ in range(100):
                    who = patient.credentials("tester", "survey", canary=True)
                    with suppress(grpc.aio.AioRpcError):
                        await SurveyServiceStub(channel).ListRequests(
                            survey.ListRequestsRequest(), metadata=who, timeout=5
                        )
                    await asyncio.sleep(0.2)

        address = patient.metrics("survey-canary")
        with patient.scraped("survey-canary", "survey", address), repeated(calls):
            yield
    finally:
        patient.mesh.amarre("canary", "abort", "survey")


@contextmanager
def neglected_machine(patient: Patient) -> Iterator[None]:
    """A machine with busy processors, a wrong clock, a full disk, little memory and no backups."""
    with machine.neglected(patient.site), machine.busy():
        yield


def old_certificate(patient: Patient) -> AbstractContextManager[None]:
    """A certificate that nobody renews."""
    return e2e.old_certificate(patient.mesh, "health")


def foreign_caller(patient: Patient) -> AbstractContextManager[None]:
    """Health calls a method of Survey that its contract does not allow it."""
    path = "/amarre.survey.v1.SurveyService/GetLink"
    return e2e.intruder(patient.mesh, "health", "survey", path)


@contextmanager
def many_streams(patient: Patient) -> Iterator[None]:
    """A client that opens more event streams than it may."""
    app = patient.mesh.ready["urls"]["app"]

    async def stream() -> None:
        with suppress(httpx.HTTPError):
            async with (
                httpx.AsyncClient(base_url=app, trust_env=False, timeout=None) as client,
                client.stream("GET", "/api/v1/health/events") as answer,
            ):
                async for _ in answer.aiter_raw():
                    pass
        await asyncio.sleep(1)

    with repeated(*[stream] * STREAMS):
        yield


@contextmanager
def silent_trace_storage(patient: Patient) -> Iterator[None]:
    """A Jaeger that hangs."""
    jaeger = patient.site.programs["jaeger"].pid
    with e2e.stopped(jaeger):
        yield


@contextmanager
def foreign_series(patient: Patient) -> Iterator[None]:
    """Another application that exports a series with the name of a recording rule."""
    series = b'service:amarre_in_flight:limit{service="survey"} 1\n'

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(series)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    targets = patient.site.folder / "applications/foreign.yaml"
    with closing(_Served(Handler)) as server:
        targets.write_text(f'- targets: ["{server.address}"]\n')
        try:
            yield
        finally:
            targets.unlink()


class _Served:
    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def refused_heartbeats(patient: Patient) -> Iterator[None]:
    """A receiver of heartbeats that refuses them."""
    patient.site.refuses_heartbeats = True
    try:
        yield
    finally:
        patient.site.refuses_heartbeats = False


@contextmanager
def no_targets(patient: Patient) -> Iterator[None]:
    """A service discovery that finds nothing."""
    patient.site.scrape([])
    try:
        yield
    finally:
        patient.site.scrape(patient.site.targets())


Chain = tuple[Fault, ...]
MACHINE = _fault(
    neglected_machine, "HostCpuHigh", "HostMemoryLow", "DiskFilling", "ClockWrong", "BackupOld"
)
CHAINS: tuple[Chain, ...] = (
    (
        _fault(
            wrong_methods,
            "GatewayErrors",
            "AvailabilityBudgetBurnsFast",
            "MethodAboveOneSecond",
            "MethodSlowerThanPromised",
            "LatencyBudgetBurnsSlowly",
        ),
        _fault(slow_redcap, "RedcapSlow"),
        _fault(unreliable_redcap, "RedcapFailing"),
        _fault(failing_redcap, "RedcapBreakerOpen"),
        _fault(hung_service, "ServiceDown", "HostEjected"),
    ),
    (
        _fault(guessed_links, "SignInsFailing", "SignUpsLimited"),
        _fault(silent_mail_server, "MailFailing", "MailsWaiting"),
        _fault(locked_database, "DatabaseSlow", "ServiceSaturated", "BreakerOpen"),
    ),
    (
        _fault(bad_release, "CanaryFailing", "EventLoopLate", "ProcessCpuHigh"),
        MACHINE,
    ),
    (_fault(old_certificate, "CertificateExpiring"),),
    (_fault(foreign_caller, "CallersRefused"),),
    (_fault(many_streams, "LimitRefusals"),),
    (
        _fault(silent_trace_storage, "TelemetryLost"),
        _fault(silent_identity_provider, "AppwriteFailing"),
    ),
    (_fault(foreign_series, "RulesFailing"),),
    (_fault(refused_heartbeats, "NotificationsFailing"),),
)
LAST = _fault(no_targets, "NothingIsScraped")
"""It ends every other alert."""
AFTERWARDS = frozenset({"AvailabilityBudgetBurnsSlowly"})
"""Alerts of those faults that others inhibit until they are over."""
ELSEWHERE = frozenset(
    {"ProxyDown", "ErrorsAboveFivePercent", "LatencyBudgetBurnsFast", "RetryStorm", "Watchdog"}
)
"""The alerts of `test_notifications`."""
