"""
Names and time series, which the store refers to by number, and their limits.

No sender can use up what the mesh needs: a service or process has a quota, workloads of the mesh
have a reserve, and scraped series do not compete with pushed ones.
"""

import functools
import sqlite3
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from mesh.console import naming
from mesh.console.store.intake_counters import IntakeCounters
from mesh.console.store.rows import Point
from mesh.contract import policy
from mesh.contract.faults import WORKLOADS

MOST_NAMES = 20_000
MOST_NAMES_OF_SERVICE = 5_000
RESERVED_NAMES = 5_000
"""Further names for workloads of the mesh; those of the contract's methods are never refused."""
MANY_NAMES = "(many names)"
MOST_SERIES = 20_000
"""The most pushed series, and the most scraped ones."""
MOST_SERIES_OF_PROCESS = 5_000
_FORGET_EVERY = timedelta(minutes=10) // timedelta(microseconds=1)
"""Deleting unused names reads all spans."""
_SERIES = "process, name, labels, kind, unit, scope, pushed"


class Names:
    """The names of spans and rpcs."""

    def __init__(self, db: sqlite3.Connection, intake: IntakeCounters) -> None:
        self._db = db
        self._intake = intake
        self._ids: dict[str, int] = {}
        self._owners: dict[str, str] = {}
        """The service that each name came from, since the start."""
        self._owned: Counter[str] = Counter()
        self._refused = False
        self._forgot_at = 0

    def load(self) -> None:
        """Load the names from the file."""
        self._ids = {text: key for key, text in self._db.execute("SELECT id, text FROM names")}
        self._owners = {text: name for text, name in self._owners.items() if text in self._ids}
        self._owned = Counter(self._owners.values())

    def id(self, text: str, service: str) -> int:
        """Return the id of a name in a span of *service*."""
        known = self._ids.get(text)
        if known is None:
            if text != MANY_NAMES and not self._has_room(text, service):
                self._refused = True
                self._intake.drop("traces", "too_many_names", service=service)
                return self.id(MANY_NAMES, service)
            known = self._db.execute("INSERT INTO names (text) VALUES (?)", (text,)).lastrowid or 0
            self._ids[text] = known
            self._owners[text] = service
            self._owned[service] += 1
        return known

    def _has_room(self, text: str, service: str) -> bool:
        if text in _of_contracts():
            return True
        if naming.workload(service) in WORKLOADS:
            return len(self._ids) < MOST_NAMES + RESERVED_NAMES
        return len(self._ids) < MOST_NAMES and self._owned[service] < MOST_NAMES_OF_SERVICE

    def forget(self, now: int) -> None:
        """Delete names that no span and no trace has, if one was refused for lack of room."""
        if not self._refused or now - self._forgot_at < _FORGET_EVERY:
            return
        self._refused, self._forgot_at = False, now
        for (text,) in self._db.execute(
            "DELETE FROM names WHERE id NOT IN (SELECT name FROM spans UNION SELECT rpc FROM spans"
            " UNION SELECT name FROM traces UNION SELECT rpc FROM traces) RETURNING text"
        ).fetchall():
            self._ids.pop(text, None)
            self._owners.pop(text, None)
        self._owned = Counter(self._owners.values())


class SeriesIds:
    """The identities of time series."""

    def __init__(self, db: sqlite3.Connection, intake: IntakeCounters) -> None:
        self._db = db
        self._intake = intake
        self._ids: dict[tuple[Any, ...], int] = {}
        self._held: Counter[tuple[int, str]] = Counter()
        """The number of pushed or scraped series, of each process and, without one, of all."""

    def load(self) -> None:
        """Load the series from the file."""
        self._ids.clear()
        self._held.clear()
        for key, *series in self._db.execute(f"SELECT id, {_SERIES} FROM series"):  # noqa: S608 - fixed
            self._ids[tuple(series)] = key
            self._hold(series[6], series[0], 1)

    def _hold(self, pushed: int, process: str, count: int) -> None:
        self._held[pushed, process] += count
        self._held[pushed, ""] += count

    def id(self, point: Point) -> int:
        """Return the id of the series of *point*; 0 if there are too many."""
        key = point.series
        known = self._ids.get(key)
        if known is None:
            if (
                self._held[point.pushed, ""] >= MOST_SERIES
                or self._held[point.pushed, point.process] >= MOST_SERIES_OF_PROCESS
            ):
                self._intake.drop("metrics", "too_many_series", service=point.process)
                return 0
            known = (
                self._db.execute(
                    f"INSERT INTO series ({_SERIES}) VALUES (?,?,?,?,?,?,?)",  # noqa: S608 - fixed
                    key,
                ).lastrowid
                or 0
            )
            self._ids[key] = known
            self._hold(point.pushed, point.process, 1)
        return known

    def forget(self) -> None:
        """Delete series without points."""
        gone: Iterable[tuple[Any, ...]] = self._db.execute(
            "DELETE FROM series WHERE NOT EXISTS (SELECT 1 FROM points WHERE series = series.id)"  # noqa: S608 - fixed
            f" RETURNING {_SERIES}"
        ).fetchall()
        for key in gone:
            if self._ids.pop(tuple(key), None) is not None:
                self._hold(key[6], key[0], -1)


@functools.cache
def _of_contracts() -> frozenset[str]:
    """Return how spans call the methods of the contracts."""
    found = policy.load()
    return frozenset(
        name
        for method in found
        for name in (method.short_name, method.path, method.path.removeprefix("/"))
    )
