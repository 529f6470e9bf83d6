"""
Trace search, and the details of one trace.

A trace matches if one of its spans satisfies every condition. Conditions on service, rpc, error
and duration use indexes; those on attributes and names scan spans window by window, newest first,
and stop after a while with a token to continue from.
"""

import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mesh.console.clock import rfc3339
from mesh.console.queries import trace_analysis as analysis
from mesh.console.store.reader import from_token, name_ids, service_id, service_names, to_token

SCANNED_AT_ONCE = 20_000
SCAN_SECONDS = 0.07
MOST_SPANS = 20_000
"""The maximum number of spans returned for one trace."""
MOST_BACK_LINKS = 100
_FOREVER = 2**62


@dataclass(frozen=True)
class Search:
    """Search conditions, times in microseconds; defaults match everything."""

    service: str = ""
    rpc: str = ""
    status: str = ""
    """``error``: the span failed; ``ok``: no span of the trace failed."""
    min_duration: int = 0
    max_duration: int | None = None
    attribute: str = ""
    """``key=value``; an exact match."""
    text: str = ""
    """Part of a span's name."""
    since: int = 0
    until: int = 0
    probes: bool = False
    """Whether to include health checks."""
    limit: int = 50
    token: str = ""


def search(db: sqlite3.Connection, wanted: Search) -> tuple[list[dict[str, Any]], str]:
    """
    Return summaries of traces, newest first, and the token of the next page.

    A page may be short or empty and still have a next page: the search stops after a while.

    Raises:
        BadRequestError: The token is invalid.
    """
    ids, token = matching(db, wanted)
    return _summaries(db, ids), token


def matching(db: sqlite3.Connection, wanted: Search) -> tuple[list[int], str]:
    """
    Return the row ids of traces, newest first, and the token of the next page, as `search`.

    Raises:
        BadRequestError: The token is invalid.
    """
    before = (wanted.until or _FOREVER, 0)
    if wanted.token:
        start, key = from_token(wanted.token, 2)
        before = (start, key)
    if _needs_spans(wanted):
        return _by_spans(db, wanted, before)
    return _by_traces(db, wanted, before)


def _needs_spans(wanted: Search) -> bool:
    by_text = wanted.service or wanted.rpc or wanted.attribute or wanted.text
    return bool(by_text) or wanted.max_duration is not None


_BEFORE = "start <= ? AND (start < ? OR id < ?)"
"""SQL condition: the row comes after a position (start, id) in page order."""


def _by_traces(
    db: sqlite3.Connection, wanted: Search, before: tuple[int, int]
) -> tuple[list[int], str]:
    start, key = before
    where, values = [_BEFORE, "start >= ?"], [start, start, key, wanted.since]
    if not wanted.probes:
        where.append("probe = 0")
    if wanted.status:
        where.append("errors > 0" if wanted.status == "error" else "errors = 0")
    if wanted.min_duration:
        where.append("finish - start >= ?")
        values.append(wanted.min_duration)
    rows = db.execute(
        f"SELECT id, start FROM traces WHERE {' AND '.join(where)}"  # noqa: S608 - fixed conditions
        " ORDER BY start DESC, id DESC LIMIT ?",
        (*values, wanted.limit),
    ).fetchall()
    token = to_token(rows[-1][1], rows[-1][0]) if len(rows) == wanted.limit else ""
    return [row[0] for row in rows], token


def _by_spans(
    db: sqlite3.Connection, wanted: Search, before: tuple[int, int]
) -> tuple[list[int], str]:
    condition = _conditions(db, wanted)
    if condition is None:
        return [], ""
    where, values = condition
    found: dict[int, None] = {}
    ends = time.monotonic() + SCAN_SECONDS
    for (newest, key), oldest in _windows(db, wanted, before):
        rows = db.execute(
            f"SELECT trace, start, id FROM spans WHERE {_BEFORE} AND start >= ?{where}"  # noqa: S608 - fixed conditions
            " ORDER BY start DESC, id DESC",
            (newest, newest, key, oldest, *values),
        )
        for trace, start, span in rows:
            if trace in found or (wanted.token and _was_shown(db, trace, (where, values), before)):
                continue
            if wanted.status == "ok" and _has_errors(db, trace):
                continue
            found[trace] = None
            if len(found) == wanted.limit:
                return list(found), to_token(start, span)
        if oldest <= wanted.since:
            break
        if time.monotonic() > ends:
            return list(found), to_token(oldest, 0)
    return list(found), ""


def _was_shown(
    db: sqlite3.Connection,
    trace: int,
    condition: tuple[str, list[Any]],
    before: tuple[int, int],
) -> bool:
    """Return whether an earlier page included the trace because of another span."""
    where, values = condition
    start, key = before
    return bool(
        db.execute(
            f"SELECT 1 FROM spans WHERE trace = ? AND NOT ({_BEFORE}){where} LIMIT 1",  # noqa: S608 - fixed conditions
            (trace, start, start, key, *values),
        ).fetchone()
    )


def _conditions(db: sqlite3.Connection, wanted: Search) -> tuple[str, list[Any]] | None:
    """Return an SQL condition and its parameters; None if nothing can match."""
    where, values = "", list[Any]()
    if wanted.service:
        service = service_id(db, wanted.service)
        if not service:
            return None
        where += " AND service = ?"
        values.append(service)
    for text, column, part in ((wanted.rpc, "rpc", False), (wanted.text, "name", True)):
        if text:
            ids = name_ids(db, text, part=part)
            if not ids:
                return None
            where += f" AND {column} IN ({','.join(map(str, ids))})"
    if wanted.status == "error":
        where += " AND error = 1"
    if not wanted.probes:
        where += " AND probe = 0"
    for bound, comparison in ((wanted.min_duration, ">="), (wanted.max_duration, "<=")):
        if bound is not None:
            where += f" AND duration {comparison} ?"
            values.append(bound)
    if wanted.attribute:
        where += _HAS_ATTRIBUTE
        key, _, value = wanted.attribute.partition("=")
        values += [f"{json.dumps(key, ensure_ascii=False)}:", key, value, _number(value)]
    return where, values


_HAS_ATTRIBUTE = (
    # Parsing JSON costs more than searching it.
    " AND instr(attributes, ?) AND EXISTS (SELECT 1 FROM json_each(attributes) a WHERE a.key = ?"
    " AND (iif(a.type IN ('true', 'false'), a.type, CAST(a.value AS TEXT)) = ?"
    " OR a.type IN ('integer', 'real') AND a.value = ?))"
)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _windows(
    db: sqlite3.Connection, wanted: Search, before: tuple[int, int]
) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield ((newest, id), oldest) of each window; a single one if an index covers the search."""
    if not (wanted.attribute or wanted.text):
        yield before, wanted.since
        return
    while before[0] > wanted.since:
        row = db.execute(
            "SELECT start FROM spans WHERE start < ? AND start >= ? ORDER BY start DESC"
            " LIMIT 1 OFFSET ?",
            (before[0], wanted.since, SCANNED_AT_ONCE),
        ).fetchone()
        oldest = row[0] if row else wanted.since
        yield before, oldest
        before = (oldest, 0)


def _has_errors(db: sqlite3.Connection, trace: int) -> bool:
    return bool(db.execute("SELECT errors FROM traces WHERE id = ?", (trace,)).fetchone()[0])


def _summaries(db: sqlite3.Connection, ids: list[int]) -> list[dict[str, Any]]:
    services = service_names(db)
    found = []
    for key in ids:
        row = db.execute(
            "SELECT t.*, n.text AS title, r.text AS method FROM traces t"
            " JOIN names n ON n.id = t.name JOIN names r ON r.id = t.rpc WHERE t.id = ?",
            (key,),
        ).fetchone()
        if row is None:
            continue  # It has been evicted.
        involved = db.execute(
            "SELECT service, count(*), sum(error) FROM spans WHERE trace = ? GROUP BY service",
            (key,),
        ).fetchall()
        found.append(
            {
                "traceId": row["trace_id"].hex(),
                "start": rfc3339(row["start"]),
                "durationMs": (row["finish"] - row["start"]) / 1000,
                "name": row["title"],
                "service": services.get(row["service"], ""),
                "rpc": row["method"],
                "code": row["code"],
                "status": "error" if row["errors"] else "ok",
                "spanCount": row["spans"],
                "errorCount": row["errors"],
                "services": [
                    {"name": services.get(s, ""), "spans": count, "errors": errors}
                    for s, count, errors in involved
                ],
                "failedAt": _failed_at(db, key, services) if row["errors"] else None,
            }
        )
    return found


def _failed_at(
    db: sqlite3.Connection, trace: int, services: dict[int, str]
) -> dict[str, Any] | None:
    row = analysis.failed_at(db, trace)
    if row is None:
        return None
    return {
        "service": services.get(row["service"], ""),
        "proxy": bool(row["proxy"]),
        "name": row["name"],
        "rpc": row["rpc"],
        "code": row["code"],
    }


def one(db: sqlite3.Connection, trace_id: bytes) -> dict[str, Any] | None:
    """Return a trace with its spans sorted by start; None if it is not stored."""
    row = db.execute("SELECT id FROM traces WHERE trace_id = ?", (trace_id,)).fetchone()
    if row is None:
        return None
    summaries = _summaries(db, [row[0]])
    services = service_names(db)
    rows = db.execute(
        "SELECT s.*, n.text AS title, r.text AS method FROM spans s JOIN names n ON n.id = s.name"
        " JOIN names r ON r.id = s.rpc WHERE trace = ? ORDER BY start, s.id LIMIT ?",
        (row[0], MOST_SPANS),
    ).fetchall()
    critical = analysis.critical_path(
        [(r["span_id"], r["parent_id"], r["start"], r["start"] + r["duration"]) for r in rows]
    )
    links = _links(db, row[0])
    spans = [
        _span(r, services, trace_id.hex(), critical.get(r["span_id"], 0))
        | {"links": links.get(r["span_id"], [])}
        for r in rows
    ]
    return {
        **(summaries[0] if summaries else {}),
        "spans": spans,
        "linkedFrom": _linked_from(db, trace_id),
        "rank": analysis.rank_of_trace(db, row[0]),
        "exemplars": analysis.exemplars(db, trace_id, rows),
    }


def _links(db: sqlite3.Connection, trace: int) -> dict[bytes, list[dict[str, Any]]]:
    """Return the links of each span of a trace; ``kept`` is whether the target is stored."""
    found: dict[bytes, list[dict[str, Any]]] = {}
    for span_id, to_trace, to_span, attributes, kept in db.execute(
        "SELECT l.span_id, l.to_trace, l.to_span, l.attributes, t.id IS NOT NULL FROM links l"
        " LEFT JOIN traces t ON t.trace_id = l.to_trace WHERE l.trace = ?",
        (trace,),
    ):
        found.setdefault(span_id, []).append(
            {
                "traceId": to_trace.hex(),
                "spanId": to_span.hex(),
                "attributes": json.loads(attributes),
                "kept": bool(kept),
            }
        )
    return found


def _linked_from(db: sqlite3.Connection, trace_id: bytes) -> list[dict[str, Any]]:
    """Return the spans of all traces that link to a trace, newest first."""
    rows = db.execute(
        "SELECT t.trace_id, l.span_id, l.to_span, n.text, t.start FROM links l"
        " JOIN traces t ON t.id = l.trace JOIN names n ON n.id = t.name"
        " WHERE l.to_trace = ? ORDER BY t.start DESC LIMIT ?",
        (trace_id, MOST_BACK_LINKS),
    )
    return [
        {
            "traceId": source.hex(),
            "spanId": span_id.hex(),
            "toSpanId": to_span.hex(),
            "name": name,
            "start": rfc3339(start),
        }
        for source, span_id, to_span, name, start in rows
    ]


_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")


def _span(
    row: sqlite3.Row, services: dict[int, str], trace_id: str, critical: int
) -> dict[str, Any]:
    return {
        "traceId": trace_id,
        "spanId": row["span_id"].hex(),
        "parentSpanId": row["parent_id"].hex(),
        "service": services.get(row["service"], ""),
        "instance": row["instance"],
        "name": row["title"],
        "rpc": row["method"],
        "kind": _KINDS[row["kind"]] if row["kind"] < len(_KINDS) else "UNSPECIFIED",
        "proxy": bool(row["proxy"]),
        "start": rfc3339(row["start"]),
        "startUs": row["start"],
        "durationMs": row["duration"] / 1000,
        "status": "error" if row["error"] else "ok",
        "code": row["code"],
        "message": row["message"],
        "criticalMs": critical / 1000,
        "attributes": json.loads(row["attributes"]),
        "events": [
            {**event, "at": rfc3339(event["at"])} for event in json.loads(row["events"] or "[]")
        ],
    }
