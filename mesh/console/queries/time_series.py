"""Scraped time series: their names, and the points of one."""

import json
import sqlite3
from typing import Any


def names(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return every metric name with its number of series and its processes."""
    rows = db.execute(
        "SELECT name, count(*) AS series, group_concat(DISTINCT process) FROM series"
        " GROUP BY name ORDER BY name"
    )
    return [{"name": n, "series": c, "processes": p.split(",")} for n, c, p in rows]


def points(
    db: sqlite3.Connection, name: str, process: str, since: int, until: int
) -> list[dict[str, Any]]:
    """
    Return the series named *name*, only those of *process* unless it is empty.

    Points are pairs of time (seconds since the epoch) and value, from *since* to *until*
    (microseconds).
    """
    found = db.execute(
        "SELECT id, process, labels, kind FROM series WHERE name = ? AND (? = '' OR process = ?)"
        " ORDER BY process, labels LIMIT 200",
        (name, process, process),
    ).fetchall()
    return [
        {
            "name": name,
            "process": row["process"],
            "labels": json.loads(row["labels"]),
            "kind": row["kind"],
            "points": [
                [at / 1e6, value]
                for at, value in db.execute(
                    "SELECT at, value FROM points WHERE series = ? AND at BETWEEN ? AND ?"
                    " ORDER BY at",
                    (row["id"], since, until),
                )
            ],
        }
        for row in found
    ]
