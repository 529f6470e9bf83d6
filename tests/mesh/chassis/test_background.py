"""The supervisor of background tasks: restart, report, and stop with the body."""

import asyncio
import json
import threading
from pathlib import Path

import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

from mesh.chassis import background as module
from mesh.chassis import server
from mesh.chassis.background import background, failing, spawn, supervise
from mesh.chassis.telemetry import names
from mesh.chassis.telemetry.logs import configure_logs
from mesh.chassis.testing import connected, served


class Task:
    """A task that fails a given number of times, then runs until cancelled."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.starts = 0
        self.running = asyncio.Event()
        self._failures = failures
        self._error = error or RuntimeError("REDCap returned a response that is too deep")

    async def run(self) -> None:
        self.starts += 1
        if self.starts <= self._failures:
            raise self._error
        self.running.set()
        await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_SECONDS", 0.001)


def failures(task: str) -> float:
    return REGISTRY.get_sample_value(names.BACKGROUND_FAILURES, {"task": task}) or 0.0


def up(task: str) -> float | None:
    return REGISTRY.get_sample_value(names.BACKGROUND_UP, {"task": task})


class TestRestart:
    async def test_failed_task(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A task that raises is logged as an error, counted and restarted."""
        configure_logs("survey", "survey", "INFO")
        task = Task(failures=3)
        async with background("restarted", task.run):
            await asyncio.wait_for(task.running.wait(), 10)
        assert task.starts == 4
        assert failures("restarted") == 3
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["task"] for line in lines if line["kind"] == "error"] == ["restarted"] * 3
        assert "too deep" in lines[0]["exception"]

    async def test_cancelled_inside(self) -> None:
        """A cancellation from within the task is a failure like any other."""
        task = Task(failures=1, error=asyncio.CancelledError())
        async with background("cancelled inside", task.run):
            await asyncio.wait_for(task.running.wait(), 10)
        assert failures("cancelled inside") == 1

    async def test_back_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The delay doubles up to the maximum."""
        delays: list[float] = []
        sleep = asyncio.sleep

        async def note(seconds: float) -> None:
            delays.append(seconds)
            await sleep(0)

        monkeypatch.setattr(module, "LONGEST_DELAY_SECONDS", 0.004)
        monkeypatch.setattr(asyncio, "sleep", note)
        task = Task(failures=5)
        async with background("back-off", task.run):
            await asyncio.wait_for(task.running.wait(), 10)
        for delay, expected in zip(delays, [0.001, 0.002, 0.004, 0.004, 0.004], strict=True):
            assert expected * 0.8 <= delay <= expected * 1.2

    async def test_log_cannot_be_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A full log disk does not stop supervision."""

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module.log, "error", full)
        task = Task(failures=1)
        async with background("disk full", task.run):
            await asyncio.wait_for(task.running.wait(), 10)
        assert failures("disk full") == 1


class TestEnd:
    async def test_body_ends(self) -> None:
        """The task ends with the body, even while it waits for its restart."""
        task = Task(failures=1_000_000)
        async with background("ends", task.run):
            await asyncio.sleep(0)
        starts = task.starts
        await asyncio.sleep(0.02)
        assert task.starts == starts
        assert failing() == []
        assert up("ends") is None

    async def test_finished(self) -> None:
        """A task that returns has finished and is not restarted."""
        starts = 0

        async def once() -> None:
            nonlocal starts
            starts += 1

        await asyncio.wait_for(supervise("finishes", once), 10)
        assert starts == 1


class TestReport:
    async def test_recovery(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A task counts as failing until it has run steadily again."""
        monkeypatch.setattr(module, "STEADY_SECONDS", 0.05)
        task = Task(failures=1)
        async with background("recovers", task.run):
            await asyncio.wait_for(task.running.wait(), 10)
            assert failing() == ["recovers"]
            assert up("recovers") == 0
            async with asyncio.timeout(10):
                while failing():
                    await asyncio.sleep(0.01)
            assert up("recovers") == 1

    @pytest.mark.parametrize("critical", [False, True])
    async def test_health(
        self, svids: Path, monkeypatch: pytest.MonkeyPatch, *, critical: bool
    ) -> None:
        """gRPC health names the failing task; only a critical one stops the service."""
        monkeypatch.setattr(server, "CHECK_SECONDS", 0.01)
        task = Task(failures=1_000_000)
        async with (
            background("health", task.run, critical=critical),
            served(lambda _: None, svids / "survey") as port,
            connected("survey", port, svids / "gateway", health_pb2_grpc.HealthStub) as stub,
        ):
            statuses = health_pb2.HealthCheckResponse
            async with asyncio.timeout(20):
                async for answer in stub.Watch(
                    health_pb2.HealthCheckRequest(service=server.task_name("health"))
                ):
                    if answer.status == statuses.NOT_SERVING:
                        break
                whole = statuses.NOT_SERVING if critical else statuses.SERVING
                async for answer in stub.Watch(health_pb2.HealthCheckRequest()):
                    if answer.status == whole:
                        break


class TestSpawn:
    async def test_failure(self) -> None:
        """Work that runs once never raises in its caller; its failure is counted."""

        async def fail() -> None:
            raise RuntimeError("no such mailbox")

        await spawn("send mail", fail())
        assert failures("send mail") == 1


class TestThread:
    async def test_restart(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A thread that fails is logged, counted, reported and run again, until it returns."""
        monkeypatch.setattr(module, "FIRST_DELAY_SECONDS", 0.2)
        done = threading.Event()
        attempts: list[str] = []

        def work() -> None:
            attempts.append("x")
            if len(attempts) == 1:
                raise ZeroDivisionError("once")
            done.wait(10)

        before = failures("a thread")
        configure_logs("survey", "survey", "INFO")
        # A logger of its own: one that another test has used keeps the output of that test.
        monkeypatch.setattr(module, "log", structlog.get_logger("background"))
        thread = module.thread("a thread", work)
        thread.start()
        async with asyncio.timeout(10):
            while len(attempts) < 2:
                await asyncio.sleep(0.01)
        assert "a thread" in failing()
        assert up("a thread") == 0
        done.set()
        await asyncio.to_thread(thread.join, 10)

        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert ["a thread"] == [line["task"] for line in lines]
        assert before + 1 == failures("a thread")
        assert "a thread" not in module.names()
        assert up("a thread") is None
