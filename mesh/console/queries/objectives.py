"""
Methods against the objectives of their contracts: rate, errors, latency, error budget, burn rate.

Source:
    Site Reliability Workbook, chapter 5 (alerting on SLOs, multiple windows and burn rates).
"""

import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from mesh.console import naming
from mesh.contract.policy import Mesh, Method
from mesh.render.rules.slo import PAGES_ABOVE

FAST = (timedelta(minutes=5), timedelta(hours=1), PAGES_ABOVE)
SLOW = (timedelta(minutes=30), timedelta(hours=6), 6.0)
"""Short and long window of an alert and the burn rate that both must exceed: page, and ticket."""
BUDGET_WINDOW = timedelta(hours=24)
"""The window of the console's error budget; production alerts use a longer one."""
FEW = 20
"""Ratios and percentiles of fewer calls are not meaningful."""
_QUANTILES = {"p50Ms": 0.5, "p95Ms": 0.95, "p99Ms": 0.99}


@dataclass
class Total:
    """Calls of one method over a time range."""

    calls: float = 0
    failed: float = 0
    seconds: float = 0
    codes: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    buckets: dict[float, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, code: str, calls: float, seconds: float, buckets: str = "") -> None:
        """Add calls that ended with *code*; *buckets* is JSON, cumulative by upper bound."""
        self.calls += calls
        self.seconds += seconds
        self.codes[code] += calls
        if naming.is_failure(code):
            self.failed += calls
        for bound, count in json.loads(buckets or "{}").items():
            self.buckets[float(bound)] += count

    @property
    def few(self) -> bool:
        """Whether there are too few calls for meaningful ratios and percentiles."""
        return 0 < self.calls < FEW

    @property
    def error_ratio(self) -> float:
        """The share of calls that failed because of the service."""
        return self.failed / self.calls if self.calls else 0.0

    def within(self, latency: timedelta) -> float:
        """Return the share of calls that took at most *latency*; 1 if there were no calls."""
        if not self.calls:
            return 1.0
        bounds = [b for b in sorted(self.buckets) if b <= latency.total_seconds() * 1.000001]
        return min(1.0, self.buckets[bounds[-1]] / self.calls) if bounds else 0.0

    def quantiles(self) -> dict[str, float | None]:
        """Return p50, p95 and p99 in milliseconds; None if there were no calls."""
        return {name: quantile(self.buckets, share) for name, share in _QUANTILES.items()}


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """
    Return the quantile *share* of the durations in milliseconds, as Prometheus computes it.

    Interpolates linearly within a bucket; above the last bound, returns that bound.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    wanted = share * buckets[bounds[-1]]
    lower, below = 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= wanted:
            if math.isinf(bound):
                return round(lower * 1000, 3)
            inside = (wanted - below) / (count - below) if count > below else 1.0
            return round((lower + (bound - lower) * inside) * 1000, 3)
        lower, below = bound, count
    return round(lower * 1000, 3)


def totals(
    db: sqlite3.Connection, *, since: int, until: int, buckets: bool = True
) -> dict[str, Total]:
    """Return the totals of each ``service.Method`` between two times in Unix seconds."""
    found: dict[str, Total] = defaultdict(Total)
    if buckets:
        rows = db.execute(
            "SELECT service, method, code, calls, seconds, buckets FROM calls"
            " WHERE slot >= ? AND slot < ?",
            (since, until),
        )
    else:
        rows = db.execute(
            "SELECT service, method, code, sum(calls), sum(seconds), '' FROM calls"
            " WHERE slot >= ? AND slot < ? GROUP BY service, method, code",
            (since, until),
        )
    for service, method, code, calls, seconds, text in rows:
        found[f"{service}.{method}"].add(code, calls, seconds, text)
    return found


def covered(db: sqlite3.Connection, seconds: int, until: int) -> int:
    """
    Return how many of the *seconds* before *until* (Unix seconds) have data; at least 1.

    A rate over the time before the mesh was started would be too low.
    """
    since = until - seconds
    row = db.execute("SELECT min(started) FROM runs WHERE seen >= ?", (since * 1_000_000,))
    began = (row.fetchone()[0] or 0) // 1_000_000
    return max(1, until - max(since, began))


def is_known(db: sqlite3.Connection, name: str) -> bool:
    """Return whether calls of a method or route are stored."""
    service, _, method = name.partition(".")
    row = db.execute(
        "SELECT 1 FROM calls WHERE service = ? AND method = ? LIMIT 1", (service, method)
    )
    return row.fetchone() is not None


def methods(
    db: sqlite3.Connection, mesh: Mesh, *, now: int, window: timedelta
) -> list[dict[str, Any]]:
    """
    Return every contract method and every gateway route over *window*.

    Long-lived streams (``staysOpen``) have calls and codes but no durations, objective or budget:
    callers count a stream when it ends, and each failed attempt to open one.
    """
    seconds = int(window.total_seconds())
    with_data = covered(db, seconds, now)
    recent = totals(db, since=now - seconds, until=now + 1)
    burns = {
        span: totals(db, since=now - int(span.total_seconds()), until=now + 1, buckets=False)
        for span in (*FAST[:2], *SLOW[:2], BUDGET_WINDOW)
    }
    declared = {method.short_name: method for method in mesh}
    every = [*declared, *sorted((recent.keys() | burns[BUDGET_WINDOW].keys()) - declared.keys())]
    return [
        _method(name, declared.get(name), recent.get(name, Total()), burns, with_data)
        for name in every
    ]


def _method(
    name: str,
    method: Method | None,
    total: Total,
    burns: Mapping[timedelta, Mapping[str, Total]],
    seconds: int,
) -> dict[str, Any]:
    service, _, short = name.partition(".")
    stays_open = method is not None and method.stays_open
    shown: dict[str, Any] = {
        "service": service,
        "method": short,
        "rpc": name if method else "",
        "calls": total.calls,
        "few": total.few,
        "rate": total.calls / seconds,
        "errors": total.failed,
        "errorRatio": total.error_ratio,
        "codes": dict(total.codes),
        "staysOpen": stays_open,
        **(Total() if stays_open else total).quantiles(),
    }
    if method is None:
        return shown
    shown |= {"deadlineMs": method.deadline.total_seconds() * 1000, "source": method.source}
    if stays_open:
        return shown
    objective = method.objective
    allowed = 1 - objective.availability
    spent = burns[BUDGET_WINDOW].get(name, Total())
    budget = spent.calls * allowed
    return shown | {
        "objective": {
            "availability": objective.availability,
            "latencyMs": objective.latency.total_seconds() * 1000,
            "latencyShare": objective.latency_share,
        },
        "withinLatency": total.within(objective.latency),
        "budgetLeft": 1 - spent.failed / budget if budget else 1.0,
        "budgetFailures": budget,
        "burnRates": {
            _label(span): found.get(name, Total()).error_ratio / allowed
            for span, found in burns.items()
        },
        "burnLimit": FAST[2],
    }


def _label(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    return f"{minutes // 60}h" if minutes >= 60 else f"{minutes}m"


def history(
    db: sqlite3.Connection, rpc: str, *, now: int, window: timedelta, points: int = 120
) -> list[dict[str, Any]]:
    """Return rate, error ratio and quantiles of one method over time, oldest first."""
    seconds = int(window.total_seconds())
    step = max(5, seconds // points // 5 * 5)
    start = (now - seconds) // step * step
    service, _, method = rpc.partition(".")
    slots: dict[int, Total] = defaultdict(Total)
    rows = db.execute(
        "SELECT slot, code, calls, seconds, buckets FROM calls"
        " WHERE slot >= ? AND service = ? AND method = ?",
        (start, service, method),
    )
    for slot, code, calls, took, buckets in rows:
        slots[slot // step * step].add(code, calls, took, buckets)
    return [
        {
            "at": at,
            "rate": total.calls / step,
            "errorRatio": total.error_ratio,
            **total.quantiles(),
        }
        for at in range(start, now + 1, step)
        if (total := slots.get(at, Total()))
    ]


MOST_EXEMPLARS = 200


def exemplars(
    db: sqlite3.Connection, rpc: str, *, now: int, window: timedelta
) -> list[dict[str, Any]]:
    """
    Return example calls of one method for a chart, oldest first, preferring failures.

    Only calls whose trace is still stored, so that every link works.
    """
    service, _, method = rpc.partition(".")
    since = now - int(window.total_seconds())
    rows = db.execute(
        "SELECT e.at, e.seconds, e.code, e.trace_id FROM exemplars e"
        " JOIN traces t ON t.trace_id = e.trace_id"
        " WHERE e.service = ? AND e.method = ? AND e.minute >= ? AND e.at BETWEEN ? AND ?"
        " ORDER BY e.at DESC",
        (service, method, since // 60, since * 1_000_000, (now + 1) * 1_000_000),
    )
    found = [
        {
            "at": at / 1e6,
            "durationMs": seconds * 1000,
            "code": code,
            "failed": naming.is_failure(code),
            "traceId": trace_id.hex(),
        }
        for at, seconds, code, trace_id in rows
    ]
    kept = sorted(found, key=lambda one: not one["failed"])[:MOST_EXEMPLARS]
    return sorted(kept, key=lambda one: float(one["at"]))
