"""Increases of counters and histograms over a time range, per series."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mesh.chassis.telemetry import names as emitted

REFUSALS = emitted.REFUSALS.removesuffix("_total")
LIMIT_REFUSALS = emitted.LIMIT_REFUSALS.removesuffix("_total")
NAMES = (
    emitted.REDCAP_DURATION,
    emitted.DB_DURATION,
    REFUSALS,
    LIMIT_REFUSALS,
    emitted.EVENT_LOOP_LAG,
)
"""The counters and histograms that alert conditions read."""


class Increase(NamedTuple):
    """The increase of one series; *total* is the increase of a histogram's sum."""

    name: str
    process: str
    labels: Mapping[str, str]
    events: float
    total: float


def increases(
    db: sqlite3.Connection, *, since: int, until: int, names: Sequence[str] = NAMES
) -> list[Increase]:
    """Return the increase of every scraped series in *names* between two times (microseconds)."""
    marks = ",".join("?" * len(names))
    found = []
    for key, name, process, labels in db.execute(
        f"SELECT id, name, process, labels FROM series WHERE pushed = 0"  # noqa: S608 - marks
        f" AND name IN ({marks})",
        tuple(names),
    ).fetchall():
        last = db.execute(
            "SELECT value, total FROM points WHERE series = ? AND at <= ? AND at >= ?"
            " ORDER BY at DESC LIMIT 1",
            (key, until, since),
        ).fetchone()
        if last is None:
            continue
        value, total = _before(db, key, process, since)
        if last[0] < value:  # The process restarted.
            value, total = 0.0, 0.0
        if last[0] > value:
            found.append(
                Increase(name, process, json.loads(labels), last[0] - value, last[1] - total)
            )
    return found


def _before(db: sqlite3.Connection, key: int, process: str, since: int) -> tuple[float, float]:
    """Return the value of a series before *since*."""
    row = db.execute(
        "SELECT value, total FROM points WHERE series = ? AND at < ? ORDER BY at DESC LIMIT 1",
        (key, since),
    ).fetchone()
    if row:
        return row[0], row[1]
    first = db.execute(
        "SELECT at, value, total FROM points WHERE series = ? ORDER BY at LIMIT 1", (key,)
    ).fetchone()
    (known,) = db.execute(
        "SELECT min(p.at) FROM series s JOIN points p ON p.series = s.id WHERE s.process = ?"
        " AND s.name LIKE 'process%'",
        (process,),
    ).fetchone()
    # A series that appears after its process's first scrape started at 0; one that was there
    # from the first scrape had counted before.
    if known is not None and first[0] > known:
        return 0.0, 0.0
    return first[1], first[2]
