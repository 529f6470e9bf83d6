"""Every background task of every process is restarted, logged, counted and reported.

Each process is built by its own composition root. Every task that it starts in the background
fails until it is released; nothing else is replaced. A new task without an entry in `TASKS` fails
these tests, and so does one that is not started by the supervisor, unless `tests.mesh.chassis.
test_supervised` knows who waits for it.
"""

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import prometheus_client
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

import auth_svc.__main__
import gateway.__main__
import health_svc.__main__
import survey_svc.__main__
from auth_svc.config import AuthSettings
from gateway.config import GatewaySettings
from health_svc.config import HealthSettings
from mesh.chassis import background, server, telemetry
from mesh.chassis.testing import free_port
from mesh.console.app import console
from mesh.console.settings import ConsoleSettings
from mesh.local.data_folder import DataFolder
from mesh.local.pki.certificate_authority import CertificateAuthority, issue_all
from mesh.local.processes.plan import Options
from mesh.local.runner import Runner
from survey_svc.config import SurveySettings

HEALTH = "health checks"
"""The task that reports the others; it fails once only, so that it can report."""
OF_SERVICES = {HEALTH, "event loop lag"}
TASKS = {
    "auth": {
        "key set socket",
        "follow revocations",
        "auth housekeeping",
        "watch mail",
        "watch database writes",
        "HTTP server",
        *OF_SERVICES,
    },
    "survey": {
        "watch requests",
        "study refresh",
        "reservation sweep",
        "follow revocations",
        *OF_SERVICES,
    },
    "health": OF_SERVICES,
    "gateway": {"admission samples", "revoked sessions", "event loop lag", "HTTP server"},
    "console": {
        "metrics scraper",
        "alert servers",
        "alert evaluation",
        "run history",
        "telemetry writer",
        "HTTP server",
    },
    "runner": {"certificate renewal", "writing of pending files", "log files"},
}
SECONDS = PATIENCE_SECONDS = 60.0
Reported = Callable[[str], Awaitable[bool]]
"""Whether a process reports that a task fails."""


class Saboteur:
    """Makes each background task fail until `released`, under the real supervisor."""

    def __init__(self) -> None:
        self.attempts: dict[str, int] = {}
        self.released = False
        self.stop = asyncio.Event()
        """Ends the process, as SIGTERM does."""
        self._supervise = background.supervise
        self._thread = background.thread

    async def supervise(self, name: str, work: background.Work, *, critical: bool = False) -> None:
        """Supervise *work* like the real supervisor, with injected failures."""
        await self._supervise(name, lambda: self._sabotaged(name, work), critical=critical)

    def thread(self, name: str, work: Callable[[], object]) -> threading.Thread:
        """Return a thread like the real supervisor, with injected failures."""
        return self._thread(name, lambda: self._sabotaged(name, work))

    def _sabotaged(self, name: str, work: Callable[[], Any]) -> Any:
        self.attempts[name] = self.attempts.get(name, 0) + 1
        if not self.released and not (name == HEALTH and self.attempts[name] > 1):
            raise ZeroDivisionError(f"injected into {name}")
        return work()


@pytest.fixture
def saboteur(monkeypatch: pytest.MonkeyPatch) -> Saboteur:
    """Injects a failure into each started task, with short retry delays."""
    sabotage = Saboteur()
    monkeypatch.setattr(background, "supervise", sabotage.supervise)
    monkeypatch.setattr(background, "thread", sabotage.thread)
    monkeypatch.setattr(background, "FIRST_DELAY_SECONDS", 0.05)
    monkeypatch.setattr(background, "LONGEST_DELAY_SECONDS", 0.1)
    monkeypatch.setattr(background, "STEADY_SECONDS", 0.2)
    # A logger of its own: one that another test has used keeps the configuration of that test.
    monkeypatch.setattr(background, "log", structlog.get_logger("background"))
    monkeypatch.setattr(server, "CHECK_SECONDS", 0.1)
    monkeypatch.setattr(server, "until_stop_signal", sabotage.stop.wait)
    return sabotage


def failures(task: str) -> float:
    """Return the number of counted failures of *task*."""
    return REGISTRY.get_sample_value("amarre_background_failures_total", {"task": task}) or 0.0


@contextlib.asynccontextmanager
async def running(main: Callable[[], Awaitable[None]], stop: asyncio.Event) -> AsyncIterator[None]:
    """Run the main function of a process, with its telemetry, while the body runs."""

    async def process() -> None:
        async with telemetry.running():
            await main()

    task = asyncio.create_task(process())
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(SECONDS):
            await task


def by_health(address: str) -> Reported:
    """Read the gRPC health at *address*."""

    async def reported(task: str) -> bool:
        request = health_pb2.HealthCheckRequest(service=server.task_name(task))
        async with grpc.aio.insecure_channel(address) as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
        return bool(answer.status == health_pb2.HealthCheckResponse.NOT_SERVING)

    return reported


async def by_metrics(task: str) -> bool:
    """Read ``/metrics``."""
    exposed = prometheus_client.generate_latest().decode()
    return f'amarre_background_up{{task="{task}"}} 0.0' in exposed


@contextlib.asynccontextmanager
async def auth(folder: Path, stop: asyncio.Event) -> AsyncIterator[Reported]:
    """Auth behind a sidecar, with the embedded provider."""
    settings = AuthSettings(
        transport="sidecar",
        listen=f"unix:{folder}/auth.sock",
        peers={"survey": "127.0.0.1:1"},
        key_set_socket=folder / "keys.sock",
        auth_database=f"sqlite+aiosqlite:///{folder}/auth.sqlite",
        auth_signing_key_file=folder / "key.pem",
        auth_key_set_listen=f"unix:{folder}/keys.sock",
        auth_smtp_url="smtp://127.0.0.1:1",
        auth_link_url="http://localhost:3000/login",
    )
    async with running(lambda: auth_svc.__main__.main(settings), stop):
        yield by_health(settings.listen)


@contextlib.asynccontextmanager
async def survey(folder: Path, stop: asyncio.Event) -> AsyncIterator[Reported]:
    """Survey behind a sidecar, while REDCap and Auth are unavailable."""
    token = folder / "token"
    token.touch(0o600)
    token.write_text("0123456789ABCDEF0123456789ABCDEF")
    settings = SurveySettings(
        transport="sidecar",
        listen=f"unix:{folder}/survey.sock",
        peers={"auth": "127.0.0.1:1"},
        survey_redcap_url="http://127.0.0.1:1/api/",
        survey_redcap_token_file=token,
        survey_store=f"sqlite+aiosqlite:///{folder}/survey.sqlite",
    )
    async with running(lambda: survey_svc.__main__.main(settings), stop):
        yield by_health(settings.listen)


@contextlib.asynccontextmanager
async def health(folder: Path, stop: asyncio.Event) -> AsyncIterator[Reported]:
    """Health behind a sidecar."""
    settings = HealthSettings(transport="sidecar", listen=f"unix:{folder}/health.sock")
    async with running(lambda: health_svc.__main__.main(settings), stop):
        yield by_health(settings.listen)


@contextlib.asynccontextmanager
async def edge(folder: Path, stop: asyncio.Event) -> AsyncIterator[Reported]:
    """The gateway behind a sidecar; without gRPC health, its metrics report the task."""
    settings = GatewaySettings(
        transport="sidecar",
        peers=dict.fromkeys(("auth", "survey", "health"), "127.0.0.1:1"),
        gateway_http_listen=f"unix:{folder}/gateway.sock",
    )
    async with running(lambda: gateway.__main__.main(settings), stop):
        yield by_metrics


@contextlib.asynccontextmanager
async def whole_console(folder: Path, stop: asyncio.Event) -> AsyncIterator[Reported]:
    """The console; its API reports."""
    del stop
    settings = ConsoleSettings(
        console_listen=f"127.0.0.1:{free_port()}",
        console_otlp_grpc=f"127.0.0.1:{free_port()}",
        console_otlp_http=f"127.0.0.1:{free_port()}",
        console_database=folder / "console.sqlite",
        console_token_file=folder / "console-token",
        console_prometheus="http://127.0.0.1:1",
    )
    async with console(settings), httpx.AsyncClient(trust_env=False, timeout=10) as client:
        token = settings.console_token_file.read_text()

        async def reported(task: str) -> bool:
            url = f"http://{settings.console_listen}/api/overview"
            answer = await client.get(url, headers={"authorization": f"Bearer {token}"})
            return task in answer.json()["failingTasks"]

        yield reported


@contextlib.asynccontextmanager
async def runner(folder: Path, stop: asyncio.Event) -> AsyncIterator[Reported]:
    """The runner before it starts processes; `amarre status` shows its problems."""
    del stop
    whole = Runner(DataFolder(folder / "mesh"), Options(), None)

    async def reported(task: str) -> bool:
        return any(repr(task) in problem for problem in whole.problems())

    # Without the check of ports: no process is started here.
    whole.data_folder.prepare()
    issue_all(CertificateAuthority.load_or_create(whole.data_folder.ca), whole.data_folder.certs)
    serving = asyncio.create_task(whole._serve(lambda: None))
    try:
        yield reported
    finally:
        whole._stop.set()
        await serving


PROCESSES = {
    "auth": auth,
    "survey": survey,
    "health": health,
    "gateway": edge,
    "console": whole_console,
    "runner": runner,
}


async def eventually(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until *holds* is true; a starting process refuses connections."""
    ends_at = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while asyncio.get_running_loop().time() < ends_at:
        with contextlib.suppress(grpc.aio.AioRpcError):
            if await holds():
                return
        await asyncio.sleep(0.05)
    raise AssertionError(f"Not within {PATIENCE_SECONDS:.0f} s: {what}")


@pytest.mark.parametrize("name", PROCESSES)
async def test_failure(name: str, saboteur: Saboteur, tmp_path: Path) -> None:
    """Each failing task of a process is logged, counted, reported and restarted."""
    expected = TASKS[name]
    before = {task: failures(task) for task in expected}
    with structlog.testing.capture_logs() as lines:
        async with PROCESSES[name](tmp_path, saboteur.stop) as reported:
            for task in expected - {HEALTH}:

                async def fails(task: str = task) -> bool:
                    return await reported(task)

                await eventually(fails, f"{task} is reported as failing")
            assert set(saboteur.attempts) == expected
            saboteur.released = True
            for task in expected:

                async def runs(task: str = task) -> bool:
                    return task not in background.failing() and not await reported(task)

                await eventually(runs, f"{task} runs again")
            assert set(background.names()) >= expected  # None has ended.
    logged = {line["task"] for line in lines if line["event"] == "background task failed"}
    assert logged >= expected
    for task in expected:
        assert failures(task) > before[task]
        assert saboteur.attempts[task] > 1


async def test_unsupervised(
    saboteur: Saboteur, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: for a task that dies silently, the checks above fail."""

    async def once(name: str, work: background.Work, *, critical: bool = False) -> None:
        with contextlib.suppress(ZeroDivisionError):
            await work()

    saboteur._supervise = once
    monkeypatch.setattr(sys.modules[__name__], "PATIENCE_SECONDS", 1.0)
    with pytest.raises(AssertionError, match="is reported as failing"):
        await test_failure("gateway", saboteur, tmp_path)
