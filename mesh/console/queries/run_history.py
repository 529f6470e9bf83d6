"""Runs of the console, each from start to stop, with per-method summaries for comparison."""

import json
import sqlite3
from typing import Any

from mesh.console.clock import rfc3339
from mesh.console.queries.objectives import totals

KEPT = 11
"""The number of runs that are stored: this one and the ten before it."""


def begin(db: sqlite3.Connection, now: int) -> int:
    """Start a run at *now* (microseconds) and return its id; keep only the last `KEPT`."""
    key = db.execute("INSERT INTO runs (started, seen) VALUES (?, ?)", (now, now)).lastrowid or 0
    db.execute("DELETE FROM runs WHERE id <= ?", (key - KEPT,))
    return key


def sum_up(db: sqlite3.Connection, run: int, now: int) -> None:
    """Store the per-method summary of *run* so far; it outlives the calls themselves."""
    row = db.execute("SELECT started FROM runs WHERE id = ?", (run,)).fetchone()
    if row is None:
        return
    found = totals(db, since=row[0] // 1_000_000, until=now // 1_000_000 + 1)
    summary = {
        name: {
            "calls": total.calls,
            "errorRatio": round(total.error_ratio, 6),
            **total.quantiles(),
        }
        for name, total in sorted(found.items())
    }
    db.execute(
        "UPDATE runs SET seen = ?, summary = ? WHERE id = ?", (now, json.dumps(summary), run)
    )


def last(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the stored runs, newest first."""
    return [
        {
            "id": row["id"],
            "started": rfc3339(row["started"]),
            "seen": rfc3339(row["seen"]),
            "methods": json.loads(row["summary"]),
        }
        for row in db.execute("SELECT * FROM runs ORDER BY id DESC")
    ]
