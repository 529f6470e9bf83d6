"""How the durations of a trace and its spans compare with others of their kind."""

import sqlite3
from collections.abc import Iterable
from typing import Any

MOST_RANKED = 5000
SEARCHED = 20_000
"""The number of spans of a service among which others of a kind are searched."""
MOST_METHODS = 50


def of_trace(db: sqlite3.Connection, trace: int) -> dict[str, Any]:
    """Return the rank of a trace's duration among up to 5000 traces of the same name."""
    name, own = db.execute(
        "SELECT name, finish - start FROM traces WHERE id = ?", (trace,)
    ).fetchone()
    others = db.execute(
        "SELECT finish - start FROM traces WHERE name = ? ORDER BY start DESC LIMIT ?",
        (name, MOST_RANKED),
    )
    return _rank(own, others)


def of_span(db: sqlite3.Connection, trace_id: bytes, span_id: bytes) -> dict[str, Any] | None:
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
    return _rank(own, others)


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
