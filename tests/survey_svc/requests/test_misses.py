"""Misses are cached and limited per user."""

import pytest

from mesh.chassis.errors import RateLimitedError
from survey_svc.requests import misses as module
from survey_svc.requests.misses import REFILL_SECONDS, REMEMBERED_SECONDS, Misses
from tests.limits import refusals

BURST = 30


class Ticks:
    """A monotonic clock that moves on request."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_remembered() -> None:
    """A miss is cached for a while, only for its user."""
    clock = Ticks()
    misses = Misses(BURST, clock)
    misses.remember("ada", "r9")

    assert misses.is_remembered("ada", "r9")
    assert not misses.is_remembered("ada", "r8")
    assert not misses.is_remembered("eve", "r9")
    clock.now += REMEMBERED_SECONDS
    assert not misses.is_remembered("ada", "r9")


def test_limited() -> None:
    """A user who guesses ids is rejected with Retry-After; others are not."""
    clock = Ticks()
    misses = Misses(BURST, clock)
    for number in range(BURST):
        misses.is_remembered("eve", f"r{number}")

    before = refusals("unknown_ids_per_user")
    with pytest.raises(RateLimitedError) as ei:
        misses.is_remembered("eve", "r")
    assert before + 1 == refusals("unknown_ids_per_user")

    assert ei.value.retry_after is not None
    assert 0 < ei.value.retry_after.total_seconds() <= REFILL_SECONDS / BURST
    misses.is_remembered("ada", "r")
    clock.now += ei.value.retry_after.total_seconds()
    misses.is_remembered("eve", "r")


def test_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, whatever is guessed."""
    monkeypatch.setattr(module, "MAX_KEPT", 10)
    misses = Misses(BURST, Ticks())
    for number in range(100):
        misses.is_remembered(f"user{number}", "r")
        misses.remember(f"user{number}", "r")

    assert 10 == len(misses._until)
    assert 10 == len(misses._budgets)
