"""Rate limit of recorded calls."""

from datetime import timedelta

import pytest
from opentelemetry import context, propagate, trace
from prometheus_client import REGISTRY

from mesh.chassis.telemetry import logs, names, tracing
from mesh.chassis.telemetry.allowance import Allowance
from mesh.chassis.testing import FakeClock

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OBJECTIVE = timedelta(seconds=1)


def test_burst_then_rate() -> None:
    """After a burst, tokens refill evenly; a long pause does not accumulate more than a burst."""
    clock = FakeClock()
    allowance = Allowance(per_second=10, burst=3, now=clock.time)

    assert [True, True, True, False] == [allowance.take() for _ in range(4)]
    clock.advance(timedelta(seconds=0.15))
    assert [True, False] == [allowance.take() for _ in range(2)]
    clock.advance(timedelta(hours=1))
    assert [True, True, True, False] == [allowance.take() for _ in range(4)]


def test_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under overload every call is slow: those above the limit count as ordinary ones."""
    monkeypatch.setattr(logs, "slow_calls", Allowance(per_second=0, burst=2))
    before = REGISTRY.get_sample_value(names.SLOW_CALLS_NOT_RECORDED) or 0.0

    kinds = [logs.kind_of("OK", 2.0, OBJECTIVE) for _ in range(5)]

    assert [names.KIND_SLOW] * 2 + [names.KIND_ACCESS] * 3 == kinds
    assert before + 3 == REGISTRY.get_sample_value(names.SLOW_CALLS_NOT_RECORDED)
    assert names.KIND_ERROR == logs.kind_of("INTERNAL", 2.0, OBJECTIVE)


def test_ordinary_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Ordinary calls above the limit are not logged; unusual ones and a proxy's do not consume it.
    """
    monkeypatch.setattr(logs, "ordinary_calls", Allowance(per_second=0, burst=2))

    def is_logged(kind: str, *, behind_proxy: bool = False) -> bool:
        return logs.is_logged(kind, trace.INVALID_SPAN, behind_proxy=behind_proxy)

    assert not is_logged(names.KIND_ACCESS, behind_proxy=True)
    assert all(is_logged(names.KIND_SLOW) for _ in range(5))
    assert [True, True, False] == [is_logged(names.KIND_ACCESS) for _ in range(3)]
    assert is_logged(names.KIND_ERROR)


def test_exemplars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements above the limit get no exemplar, except those of unusual calls."""
    monkeypatch.setattr(tracing, "exemplars", Allowance(per_second=0, burst=1))
    token = context.attach(propagate.extract({"traceparent": SAMPLED}))
    try:
        found = [tracing.exemplar(), tracing.exemplar(), tracing.exemplar(always=True)]
    finally:
        context.detach(token)

    _, trace, span, _ = SAMPLED.split("-")
    link = {"trace_id": trace, "span_id": span}
    assert [link, None, link] == found
