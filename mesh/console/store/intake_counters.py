"""Counters of received and dropped telemetry, with the reason for each loss."""

import threading
from collections import Counter
from dataclasses import dataclass

from mesh.console.clock import Now

MOST_KINDS = 500
OTHERS = "(others)"
REASONS = {
    "malformed": "requests that are not valid OTLP",
    "cut_short": "the sender disconnected before the end of the request",
    "too_large": "requests above the size limit",
    "queue_full": "the write queue was full",
    "unauthenticated": "requests without a valid OTLP token",
    "no_ids": "spans without a valid trace id and span id",
    "bad_ids": "references to spans and traces whose ids are invalid, in spans and log records",
    "too_old": "items older than the retention",
    "in_future": "items more than a day in the future",
    "bad_time": "spans without a valid end and events without a valid time; the start of the span"
    " is shown instead",
    "empty": "log records without text, attributes or severity",
    "no_name": "data points of metrics without a name",
    "no_temporality": "data points of sums and histograms that are neither delta nor cumulative",
    "negative": "negative data points of monotonic sums",
    "no_value": "data points without a value",
    "not_finite": "data points that are NaN or infinite",
    "bad_buckets": "histogram points whose buckets do not match their bounds, scale or count",
    "no_recorded_value": "data points that mark the end of a series",
    "unreadable": "items that could not be decoded",
    "duplicate": "duplicate spans",
    "attributes_cut": "attributes above the limits were truncated",
    "redacted": "attributes with credentials or personal data were removed",
    "too_many_names": "names above the limit were merged into one",
    "too_many_series": "time series above the limit",
    "disk_full": "the disk or the quota of the file is full",
    "not_written": "items that could not be written to the file",
}
HARMLESS = frozenset({"redacted", "duplicate", "no_recorded_value"})
"""Reasons that lose no information."""


@dataclass(frozen=True)
class Dropped:
    """Losses by signal, reason and sender: count and last time (microseconds)."""

    signal: str
    reason: str
    service: str
    count: int
    last: int


class IntakeCounters:
    """Thread-safe counters, shared by receivers and writer."""

    def __init__(self, now: Now) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._received: Counter[str] = Counter()
        self._dropped: dict[tuple[str, str, str], tuple[int, int]] = {}

    def receive(self, signal: str, count: int) -> None:
        """Count received items."""
        with self._lock:
            self._received[signal] += count

    def drop(self, signal: str, reason: str, *, service: str = "", count: int = 1) -> None:
        """Count items that were dropped or changed, with a reason from `REASONS`."""
        if count:
            with self._lock:
                key = (signal, reason, service)
                if key not in self._dropped and len(self._dropped) >= MOST_KINDS:
                    self._merge_oldest()
                self._dropped[key] = (self._dropped.get(key, (0, 0))[0] + count, self._now())

    def _merge_oldest(self) -> None:
        """Make room for another sender, so that many invented ones hide no new one."""
        named = [key for key in self._dropped if key[2] != OTHERS]
        oldest = min(named, key=lambda key: self._dropped[key][1])
        count, last = self._dropped.pop(oldest)
        others = (*oldest[:2], OTHERS)
        before = self._dropped.get(others, (0, 0))
        self._dropped[others] = (before[0] + count, max(before[1], last))

    def received(self) -> dict[str, int]:
        """Return the number of received items of each signal since the start."""
        with self._lock:
            return dict(self._received)

    def dropped(self) -> list[Dropped]:
        """Return all losses since the start, most recent first."""
        with self._lock:
            found = [Dropped(*key, *value) for key, value in self._dropped.items()]
        return sorted(found, key=lambda one: -one.last)
