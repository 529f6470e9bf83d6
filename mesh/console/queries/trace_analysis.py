"""
Analysis of one trace: its critical path, its ranks among its kind, and its exemplars.

The critical path consists of the spans that determine the duration. Walking back from the end of
the root, each moment is assigned to the child that ended last before it, and to the span itself
where no child was running.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

MOST_RANKED = 5000
SEARCHED = 20_000
"""The number of spans of a service among which others of a kind are searched."""
MOST_METHODS = 50


class Timing(NamedTuple):
    """Start and end of a span in microseconds, and its parent."""

    span_id: bytes
    parent_id: bytes
    start: int
    end: int


def critical_path(spans: Sequence[tuple[bytes, bytes, int, int]]) -> dict[bytes, int]:
    """
    Return how many microseconds each span contributes to the critical path.

    Args:
        spans: ``(span_id, parent_id, start, end)`` of one trace, in any order. Clocks may
            disagree and parents may be missing; the longest span without a parent is the root.

    Returns:
        Only the spans on the path; the values add up to the duration of the root.
    """
    timings = [Timing(*span) for span in spans]
    known = {timing.span_id for timing in timings}
    children: dict[bytes, list[Timing]] = {}
    roots = []
    for timing in timings:
        if timing.parent_id in known and timing.parent_id != timing.span_id:
            children.setdefault(timing.parent_id, []).append(timing)
        else:
            roots.append(timing)
    if not roots:
        return {}
    root = max(roots, key=lambda timing: timing.end - timing.start)
    found: dict[bytes, int] = {}
    # A stack of (span, from, to) rather than recursion: traces may be deep. Every span is visited
    # once, so that a cycle of parents terminates.
    todo = [(root, root.start, root.end)]
    taken: set[bytes] = set()
    while todo:
        span, begin, moment = todo.pop()
        if span.span_id in taken:
            continue
        taken.add(span.span_id)
        own = 0
        for child in sorted(children.get(span.span_id, ()), key=lambda c: -c.end):
            end = min(child.end, moment)
            start = max(child.start, begin)
            if start >= end:
                continue
            own += moment - end
            todo.append((child, start, end))
            moment = start
        own += moment - begin
        if own or span is root:
            found[span.span_id] = own
    return found


def failed_at(db: sqlite3.Connection, trace: int) -> sqlite3.Row | None:
    """
    Return the innermost failed span of a trace, which is nearest to the cause; None if none failed.

    The last one, if several have no failed child: a call that is retried fails several times.
    """
    row: sqlite3.Row | None = db.execute(
        "SELECT s.service, s.proxy, s.code, n.text AS name, r.text AS rpc FROM spans s"
        " JOIN names n ON n.id = s.name JOIN names r ON r.id = s.rpc"
        " WHERE s.trace = ? AND s.error = 1 AND NOT EXISTS ("
        "  SELECT 1 FROM spans c WHERE c.trace = s.trace AND c.error = 1"
        "  AND c.parent_id = s.span_id AND c.span_id != s.span_id)"
        " ORDER BY s.start DESC, s.id DESC LIMIT 1",
        (trace,),
    ).fetchone()
    return row


def rank_of_trace(db: sqlite3.Connection, trace: int) -> dict[str, Any]:
    """Return the rank of a trace's duration among up to 5000 traces of the same name."""
    name, own = db.execute(
        "SELECT name, finish - start FROM traces WHERE id = ?", (trace,)
    ).fetchone()
    others = db.execute(
        "SELECT finish - start FROM traces WHERE name = ? ORDER BY start DESC LIMIT ?",
        (name, MOST_RANKED),
    )
    return _rank(own, others)


def rank_of_span(db: sqlite3.Connection, trace_id: bytes, span_id: bytes) -> dict[str, Any] | None:
    """
    Return the rank of a span's duration among the last spans of its service, name and kind.

    None if the span is not stored.
    """
    row = db.execute(
        "SELECT s.service, s.name, s.kind, s.duration FROM spans s JOIN traces t ON t.id = s.trace"
        " WHERE t.trace_id = ? AND s.span_id = ?",
        (trace_id, span_id),
    ).fetchone()
    if row is None:
        return None
    service, name, kind, own = row
    others = db.execute(
        "SELECT duration FROM (SELECT duration, name, kind FROM spans WHERE service = ?"
        " ORDER BY start DESC LIMIT ?) WHERE name = ? AND kind = ? LIMIT ?",
        (service, SEARCHED, name, kind, MOST_RANKED),
    )
    return _rank(own, others) | {"searched": SEARCHED}


def _rank(own: int, rows: Iterable[tuple[int]]) -> dict[str, Any]:
    others = sorted(duration for (duration,) in rows) or [own]

    def at(share: float) -> float:
        return others[min(len(others) - 1, int(share * len(others)))] / 1000

    return {
        "among": len(others),
        "fasterThan": sum(one > own for one in others) / len(others),
        "slowerThan": sum(one < own for one in others) / len(others),
        "p50Ms": at(0.5),
        "p95Ms": at(0.95),
        "p99Ms": at(0.99),
    }


def exemplars(
    db: sqlite3.Connection, trace_id: bytes, spans: Iterable[sqlite3.Row]
) -> list[dict[str, Any]]:
    """Return the methods and routes of *spans* whose metrics have a trace as an exemplar."""
    spans = list(spans)
    names = dict.fromkeys(one["method"] or f"gateway.{one['title']}" for one in spans)
    first = min((one["start"] for one in spans), default=0) // 60_000_000
    found = []
    for name in list(names)[:MOST_METHODS]:
        service, _, method = name.partition(".")
        for code, seconds in db.execute(
            "SELECT code, seconds FROM exemplars WHERE service = ? AND method = ?"
            " AND minute BETWEEN ? AND ? AND trace_id = ?",
            (service, method, first, first + 2, trace_id),
        ):
            found.append({"method": name, "code": code, "durationMs": seconds * 1000})
    return found
