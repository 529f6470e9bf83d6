"""Time series: their names, and the values, rates and percentiles of one name."""

import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.console import histograms
from mesh.console.histograms import Histogram, MergeError
from mesh.console.queries.objectives import FEW

MOST_SERIES = 200
"""The number of series that are returned at once."""
_POINTS = 120
_LEAST_STEP = 1_000_000
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_NOT_DRAWN = {
    "summary": "a summary has the percentiles of its sender, which cannot be added up",
    "sum, delta": "changes of a value that may also decrease; its starting point is unknown",
}
_NO_BUCKETS = "its points have a count and a sum, but no buckets"


def names(db: sqlite3.Connection, process: str = "") -> list[dict[str, Any]]:
    """
    Return every metric name with its kinds, number of series, processes, and whether pushed.

    Only those of *process* unless it is empty.
    """
    rows = db.execute(
        "SELECT name, count(*), json_group_array(DISTINCT process),"
        " json_group_array(DISTINCT kind), max(pushed)"
        " FROM series WHERE ? = '' OR process = ? GROUP BY name ORDER BY name",
        (process, process),
    )
    return [
        {
            "name": name,
            "series": count,
            "processes": sorted(json.loads(processes)),
            "kinds": sorted(json.loads(kinds)),
            "pushed": bool(pushed),
        }
        for name, count, processes, kinds, pushed in rows
    ]


def points(
    db: sqlite3.Connection, name: str, process: str, since: int, until: int
) -> list[dict[str, Any]]:
    """
    Return the series named *name*, only those of *process* unless it is empty.

    Each has its ``points`` (pairs of time and value, times in seconds since the epoch; those of
    cumulative histograms are thinned),
    and what they mean: ``draws`` is ``value``, ``rate`` or ``percentiles``; ``history`` has a point
    per step with these figures, and ``count`` and percentiles are those of the whole range, from
    *since* to *until* (microseconds). What cannot be shown has the reason in ``notDrawn``.
    """
    found = db.execute(
        "SELECT id, process, labels, kind, unit, scope, pushed FROM series"
        " WHERE name = ? AND (? = '' OR process = ?) ORDER BY process, labels, id LIMIT ?",
        (name, process, process, MOST_SERIES),
    ).fetchall()
    return [_series(db, name, row, since, until) for row in found]


def _series(
    db: sqlite3.Connection, name: str, row: sqlite3.Row, since: int, until: int
) -> dict[str, Any]:
    kind = row["kind"]
    is_delta = kind.endswith("delta")
    counts = "histogram" in kind and not is_delta
    read = _read(db, row["id"], since, until, step=_step(since, until) if counts else 0)
    shown: dict[str, Any] = {
        "name": name,
        "process": row["process"],
        "labels": json.loads(row["labels"]),
        "kind": kind,
        "unit": row["unit"],
        "scope": row["scope"],
        "pushed": bool(row["pushed"]),
        "points": [[one.at / 1e6, one.value] for one in read if one.at >= since],
        "draws": "",
        "notDrawn": "",
        "count": None,
        "few": False,
        **dict.fromkeys(_QUANTILES),
        "history": [],
    }
    if kind in _NOT_DRAWN:
        return shown | {"notDrawn": _NOT_DRAWN[kind]}
    if "histogram" not in kind and "counter" not in kind:
        return shown | {"draws": "value"}
    try:
        added = list(_deltas(read, since) if is_delta else _increases(read, since))
        figures = _figures(added, since, until)
    except MergeError as exc:
        return shown | {"notDrawn": str(exc)}
    if "histogram" not in kind:
        return shown | figures | {"draws": "rate"}
    if any(one.buckets is None for one in read):
        return shown | figures | {"draws": "rate", "notDrawn": _NO_BUCKETS}
    return shown | figures | {"draws": "percentiles"}


@dataclass(frozen=True)
class _Read:
    at: int
    value: float
    buckets: Histogram | None
    started: int


def _step(since: int, until: int) -> int:
    return max(_LEAST_STEP, (until - since) // _POINTS)


def _read(db: sqlite3.Connection, series: int, since: int, until: int, *, step: int) -> list[_Read]:
    """
    Return the points of the range, and the last one before it.

    With a *step*, only the first point, the last of each step and the last before a restart:
    cumulative histograms need no others, and decoding them takes long.
    """
    rows = db.execute(
        "SELECT at, value, buckets, started FROM points WHERE series = ? AND at <= ? AND at >="
        " coalesce((SELECT max(at) FROM points WHERE series = ? AND at < ?), ?) ORDER BY at",
        (series, until, series, since, since),
    ).fetchall()
    if step:
        rows = [
            row
            for row, after in itertools.zip_longest(rows, rows[1:])
            if after is None
            or row is rows[0]
            or row[0] < since
            or after[0] // step != row[0] // step
            or after[1] < row[1]
            or after[3] != row[3]
        ]
    return [
        _Read(at, value, histograms.decode(text) if text else None, started)
        for at, value, text, started in rows
    ]


@dataclass(frozen=True)
class _Added:
    """What was counted until *at*, over *seconds*."""

    at: int
    seconds: float
    count: float
    buckets: Histogram | None


def _deltas(read: Sequence[_Read], since: int) -> Iterator[_Added]:
    previous = 0
    for one in read:
        began = one.started or previous
        if one.at >= since and began < one.at:
            yield _Added(one.at, (one.at - began) / 1e6 if began else 0, one.value, one.buckets)
        previous = one.at


def _increases(read: Sequence[_Read], since: int) -> Iterator[_Added]:
    """Yield what cumulative points have counted since the one before, across restarts."""
    previous: _Read | None = None
    for one in read:
        if previous is None:
            # Only a series that started within the range has counted nothing before it.
            if one.at >= since and since <= one.started < one.at:
                yield _Added(one.at, (one.at - one.started) / 1e6, one.value, one.buckets)
        elif one.value < previous.value or one.started > previous.at:
            began = max(one.started, previous.at)
            yield _Added(one.at, (one.at - began) / 1e6, one.value, one.buckets)
        else:
            yield _Added(
                one.at,
                (one.at - previous.at) / 1e6,
                one.value - previous.value,
                histograms.combined(one.buckets, previous.buckets, -1)
                if one.buckets and previous.buckets
                else None,
            )
        previous = one


def _figures(added: Iterable[_Added], since: int, until: int) -> dict[str, Any]:
    """Return the figures of the whole range, and those of each step."""
    step = _step(since, until)
    slots: dict[int, list[_Added]] = {}
    for one in added:
        slots.setdefault(one.at // step, []).append(one)
    steps = [_sum(members) for members in slots.values()]
    return _shown(_sum(steps)) | {
        "history": [{"at": one.at / 1e6, "rate": _rate(one), **_shown(one)} for one in steps]
    }


def _sum(added: Sequence[_Added]) -> _Added:
    return _Added(
        added[-1].at if added else 0,
        sum(one.seconds for one in added),
        sum(one.count for one in added),
        histograms.total([one.buckets for one in added if one.buckets]),
    )


def _shown(one: _Added) -> dict[str, Any]:
    count, merged = one.count, one.buckets
    return {
        "count": count,
        "few": 0 < count < FEW,
        **{
            name: histograms.quantile(merged, share) if merged else None
            for name, share in _QUANTILES.items()
        },
    }


def _rate(one: _Added) -> float | None:
    return one.count / one.seconds if one.seconds else None
