"""Facets: how the traces of a search are distributed, for narrowing it."""

import json
import sqlite3
from dataclasses import replace
from typing import Any

from mesh.console.queries import traces
from mesh.console.queries.traces import Search

MAX_TRACES = 1000
"""The number of traces that are counted, newest first."""
MAX_VALUES = 12
"""The number of values per facet, most frequent first."""
DURATIONS_MS = ((0, 10), (10, 100), (100, 1000), (1000, 0))
"""Duration ranges in milliseconds; 0 means unbounded."""

_COUNTS = {
    "service": (
        "SELECT v.name, count(DISTINCT s.trace) AS n FROM spans s JOIN services v"
        " ON v.id = s.service WHERE s.trace IN (SELECT value FROM json_each(?)) GROUP BY v.name"
    ),
    "rpc": (
        "SELECT r.text, count(DISTINCT s.trace) AS n FROM spans s JOIN names r ON r.id = s.rpc"
        " WHERE s.trace IN (SELECT value FROM json_each(?)) AND r.text != '' GROUP BY r.text"
    ),
    "status": (
        "SELECT iif(errors > 0, 'error', 'ok') AS status, count(*) AS n FROM traces"
        " WHERE id IN (SELECT value FROM json_each(?)) GROUP BY status"
    ),
    "code": (
        "SELECT code, count(*) AS n FROM traces"
        " WHERE id IN (SELECT value FROM json_each(?)) AND code != '' GROUP BY code"
    ),
}


def of(db: sqlite3.Connection, wanted: Search) -> dict[str, Any]:
    """
    Return ``traces`` (how many were counted), ``complete`` and ``facets``.

    Facets are ``service``, ``rpc`` (of any span, as the search), ``status`` and ``code`` with
    ``{value, count}``, most frequent first, and ``duration`` with ``{min_ms, max_ms, count}``,
    shortest first.
    """
    ids, token = traces.matching(db, replace(wanted, limit=MAX_TRACES))
    found = json.dumps(ids)
    facets: dict[str, list[dict[str, Any]]] = {
        name: [
            {"value": value, "count": count}
            for value, count in db.execute(
                f"{sql} ORDER BY n DESC, 1 LIMIT ?",
                (found, MAX_VALUES),
            )
        ]
        for name, sql in _COUNTS.items()
    }
    facets["duration"] = _durations(db, found)
    return {"traces": len(ids), "complete": not token, "facets": facets}


def _durations(db: sqlite3.Connection, found: str) -> list[dict[str, Any]]:
    taken = [
        row[0] / 1000
        for row in db.execute(
            "SELECT finish - start FROM traces WHERE id IN (SELECT value FROM json_each(?))",
            (found,),
        )
    ]
    counted = [
        {
            "min_ms": least,
            "max_ms": most,
            "count": sum(least <= ms and (not most or ms < most) for ms in taken),
        }
        for least, most in DURATIONS_MS
    ]
    return [one for one in counted if one["count"]]
