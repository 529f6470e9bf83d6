"""The effect of hanging, dying and changing services on callers, behind real Envoys."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from mesh.contract.policy import Method
from tests.production.cluster.control_plane import eventually
from tests.production.cluster.traffic.running_mesh import DEPLOYED, Mesh, made

PRECISION_SECONDS = 0.1
SERVICES = ("auth", "survey", "health")
METHODS = [
    method
    for method in DEPLOYED.mesh
    # Longer ones would only take longer.
    if method.allows("gateway") and not method.streams and method.deadline <= timedelta(seconds=10)
]
READS = [method for method in METHODS if method.may_retry]
WRITES = [method for method in METHODS if not method.may_retry]
_RETRIES = r"outbound.*upstream_rq_retry$"


@contextmanager
def hanging(mesh: Mesh) -> Iterator[None]:
    """Stop every service while the body runs."""
    try:
        for service in SERVICES:
            mesh.one(service).place.signal("process", signal.SIGSTOP)
        yield
    finally:
        for service in SERVICES:
            mesh.one(service).place.signal("process", signal.SIGCONT)
        assert eventually(mesh.answers)


def off_by(mesh: Mesh, methods: list[Method]) -> dict[str, float]:
    """Return by how many seconds calls of hanging services exceed their deadlines."""
    calls = mesh.requests(methods, timeout=60.0)
    with hanging(mesh):
        found = made(mesh.one("gateway").place, calls, at_once=len(calls))
    assert {"DEADLINE_EXCEEDED"} == {got["code"] for got in found}, found
    return {
        method.name: got["seconds"] - method.deadline.total_seconds()
        for method, got in zip(methods, found, strict=True)
    }


def levels(mesh: Mesh) -> set[tuple[str, str]]:
    """Return status and level of the lines of caller and callee."""
    lines = [line for app in ("gateway", "survey") for line in mesh.one(app).access_log()]
    return {(line["grpc_status"], line["level"]) for line in lines}


def test_deadlines(mesh: Mesh) -> None:
    """
    A call of a hanging service ends within 100 ms of its contract's deadline, and its line has
    level error. A busy machine may end one late, so the best of three counts.
    """
    best = off_by(mesh, METHODS)
    for _ in range(2):
        late = [m for m in METHODS if abs(best[m.name]) > PRECISION_SECONDS]
        if late:
            best |= off_by(mesh, late)

    assert {} == {name: off for name, off in best.items() if abs(off) > PRECISION_SECONDS}
    assert eventually(lambda: {("OK", "info"), ("DeadlineExceeded", "error")} <= levels(mesh))


@pytest.mark.parametrize(
    ("methods", "tried_again"), [(READS, True), (WRITES, False)], ids=["reads", "writes"]
)
def test_retries(mesh: Mesh, methods: list[Method], tried_again: bool) -> None:
    """
    Only calls that the contract declares retryable are retried, once per call.
    """
    gateway = mesh.one("gateway")
    calls = mesh.requests(methods, timeout=60.0)
    before = gateway.counter(_RETRIES)
    with hanging(mesh):
        found = made(gateway.place, calls, at_once=8)
        retries = gateway.counter(_RETRIES) - before

    assert {"DEADLINE_EXCEEDED"} == {got["code"] for got in found}
    assert len(methods) * tried_again == retries
