"""A clock that does not jump."""

import time

import pytest

from mesh.console.clock import rfc3339, steady


class TestClock:
    def test_jump(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        When the system time jumps by a year, the console's clock continues.
        """
        now = steady()
        before = now()
        year = 365 * 86_400 * 10**9
        real = time.time_ns()
        monkeypatch.setattr(time, "time_ns", lambda: real + year)

        assert 0 <= now() - before < 60_000_000
        assert abs(before * 1000 - real) < 60 * 10**9

    def test_text(self) -> None:
        """
        Times are formatted in UTC with microseconds.
        """
        assert "2026-01-05T12:00:00.000007Z" == rfc3339(1_767_614_400_000_007)
