"""What came in, what was not kept and why: the console says it rather than losing it silently."""

import threading
from collections import Counter
from dataclasses import dataclass

from mesh.console.clock import Now

MOST_KINDS = 500
REASONS = {
    "malformed": "could not be read as OTLP",
    "cut_short": "its sender went away in the middle of it",
    "too_large": "one request was above the limit of its receiver",
    "queue_full": "came faster than it could be written",
    "no_ids": "a span without trace or span id",
    "too_old": "older than what is kept",
    "in_future": "more than a day in the future",
    "attributes_cut": "attributes above the limits were cut; the rest was kept",
    "redacted": "attributes that may open a door or tell of a person were removed",
    "too_many_names": "more different names than are kept apart were joined",
    "too_many_series": "more time series than are kept",
    "disk_full": "the disk or the quota of the file is full",
    "not_written": "the file could not be written",
}


@dataclass(frozen=True)
class Dropped:
    """One kind of loss: which signal, why, of whom, how often and when last (microseconds)."""

    signal: str
    reason: str
    service: str
    count: int
    last: int


class IntakeCounters:
    """Counts; used by receivers and the writer at once."""

    def __init__(self, now: Now) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._received: Counter[str] = Counter()
        self._dropped: dict[tuple[str, str, str], tuple[int, int]] = {}

    def took(self, signal: str, count: int) -> None:
        """Count what came in."""
        with self._lock:
            self._received[signal] += count

    def drop(self, signal: str, reason: str, *, service: str = "", count: int = 1) -> None:
        """Count what was not kept, or not as it came, for a reason of `REASONS`."""
        if count:
            with self._lock:
                key = (signal, reason, service)
                if key not in self._dropped and len(self._dropped) >= MOST_KINDS:
                    key = (signal, reason, "(others)")
                self._dropped[key] = (self._dropped.get(key, (0, 0))[0] + count, self._now())

    def received(self) -> dict[str, int]:
        """Return how many items of each signal came in since the start."""
        with self._lock:
            return dict(self._received)

    def dropped(self) -> list[Dropped]:
        """Return every kind of loss since the start, the latest first."""
        with self._lock:
            found = [Dropped(*key, *value) for key, value in self._dropped.items()]
        return sorted(found, key=lambda one: -one.last)
