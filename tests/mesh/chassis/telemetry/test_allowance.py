"""How many slow calls are recorded."""

from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from mesh.chassis.telemetry import logs, names
from mesh.chassis.telemetry.allowance import Allowance
from mesh.chassis.testing import FakeClock

OBJECTIVE = timedelta(seconds=1)


def test_burst_then_rate() -> None:
    """After a burst a token comes back evenly; a long pause does not save up more than a burst."""
    clock = FakeClock()
    allowance = Allowance(per_second=10, burst=3, now=clock.time)

    assert [True, True, True, False] == [allowance.take() for _ in range(4)]
    clock.advance(timedelta(seconds=0.15))
    assert [True, False] == [allowance.take() for _ in range(2)]
    clock.advance(timedelta(hours=1))
    assert [True, True, True, False] == [allowance.take() for _ in range(4)]


def test_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under overload every call is slow: those beyond the allowance count as ordinary ones."""
    monkeypatch.setattr(logs, "slow_calls", Allowance(per_second=0, burst=2))
    before = REGISTRY.get_sample_value(names.SLOW_CALLS_NOT_RECORDED) or 0.0

    kinds = [logs.kind_of("OK", 2.0, OBJECTIVE) for _ in range(5)]

    assert [names.KIND_SLOW] * 2 + [names.KIND_ACCESS] * 3 == kinds
    assert before + 3 == REGISTRY.get_sample_value(names.SLOW_CALLS_NOT_RECORDED)
    assert names.KIND_ERROR == logs.kind_of("INTERNAL", 2.0, OBJECTIVE)
