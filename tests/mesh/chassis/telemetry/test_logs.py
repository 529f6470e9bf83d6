"""Logging never fails the logged call."""

import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import structlog
from amarre.health.v1 import health_service_pb2 as pb
from amarre.health.v1 import health_service_pb2_grpc as rpc
from opentelemetry import trace
from prometheus_client import REGISTRY

from mesh.chassis.telemetry import logs, names
from mesh.chassis.telemetry.logs import configure_logs
from mesh.chassis.testing import connected, served
from tests.mesh.chassis.telemetry import recorded


class Health(rpc.HealthServiceServicer):
    """A servicer that responds immediately, using a library that logs a warning."""

    async def GetStatus(self, request: object, context: object) -> pb.GetStatusResponse:
        logging.getLogger("a.library").warning("something to note")
        structlog.get_logger("health").warning("something else to note")
        return pb.GetStatusResponse()


def lost() -> float:
    return REGISTRY.get_sample_value(names.LOG_LINES_LOST) or 0.0


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make every write to the log fail with ENOSPC, as with a full disk."""
    with io.FileIO("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(full, write_through=True))
        configure_logs("health", "health", "INFO")
        yield
        monkeypatch.undo()
        configure_logs("health", "health", "INFO")


@pytest.mark.usefixtures("full_disk")
async def test_full_disk(svids: Path) -> None:
    """A call succeeds while the log disk is full, and lost lines are counted."""

    def register(server: grpc.aio.Server) -> None:
        rpc.add_HealthServiceServicer_to_server(Health(), server)

    before = lost()
    async with (
        served(register, svids / "health") as port,
        connected("health", port, svids / "gateway", rpc.HealthServiceStub) as stub,
    ):
        await stub.GetStatus(pb.GetStatusRequest())
    assert lost() - before >= 2


def test_ordinary_calls_with_a_span() -> None:
    """An ordinary call whose span is exported is not exported again as a log record."""
    configure_logs("health", "health", "INFO")
    exported: list[str] = []
    logs.also_emit(lambda event: exported.append(event["event"]))
    log = structlog.get_logger("test")
    try:
        with recorded(), trace.get_tracer("test").start_as_current_span("call"):
            log.info("ordinary", kind=names.KIND_ACCESS)
            log.info("failed", kind=names.KIND_ERROR)
        log.info("without a span", kind=names.KIND_ACCESS)
    finally:
        logs.also_emit(None)

    assert ["failed", "without a span"] == exported
