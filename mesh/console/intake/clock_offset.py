"""
Clock offsets of senders: the difference between times in their telemetry and the time of receipt.

Telemetry is sent after the event, so a sender's latest time within a minute is close to now and
never after it. A later time means that the clock is ahead; one that stays far behind means that
the clock is behind.
"""

from dataclasses import dataclass
from datetime import timedelta

from mesh.console.clock import Now

AHEAD = timedelta(seconds=2)
BEHIND = timedelta(seconds=45)
"""The tolerated offset: batching, retries and tail sampling delay telemetry."""
_PERIOD = 30_000_000
_MAX_SENDERS = 500


@dataclass
class _Sender:
    period: int
    current: int
    previous: int | None = None


class ClockOffsets:
    """Tracks the times that senders report; safe for one writing and many reading threads."""

    def __init__(self, now: Now) -> None:
        self._now = now
        self._senders: dict[str, _Sender] = {}

    def observe(self, process: str, at: int) -> None:
        """Record the time *at* (microseconds) of an item that *process* just sent."""
        now = self._now()
        period, difference = now // _PERIOD, at - now
        known = self._senders.get(process)
        if known is None:
            if len(self._senders) >= _MAX_SENDERS:
                oldest = min(self._senders, key=lambda each: self._senders[each].period)
                del self._senders[oldest]
            self._senders[process] = _Sender(period, difference)
        elif known.period == period:
            known.current = max(known.current, difference)
        else:
            known.previous = known.current if period == known.period + 1 else None
            known.period, known.current = period, difference

    def seconds(self, process: str) -> float | None:
        """Return the offset of the clock of *process*; None while it is within the tolerance."""
        known = self._senders.get(process)
        if known is None or self._now() // _PERIOD - known.period > 2:
            return None
        latest = max(known.current, known.current if known.previous is None else known.previous)
        offset = latest / 1e6
        wrong = offset > AHEAD.total_seconds() or offset < -BEHIND.total_seconds()
        return round(offset, 1) if wrong else None

    def wrong(self) -> dict[str, float]:
        """Return the offset in seconds of every process whose clock is wrong."""
        found = {process: self.seconds(process) for process in tuple(self._senders)}
        return {process: offset for process, offset in found.items() if offset is not None}
