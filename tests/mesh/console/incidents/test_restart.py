"""Incidents outlive a restart of the console."""

import sqlite3
from typing import Any

import pytest

from mesh.console.clock import parse
from mesh.console.incidents.alert import STARTING, Alert
from mesh.console.incidents.causes import Cause
from mesh.console.incidents.changes import Change, us
from mesh.console.incidents.evaluator import Evaluator
from mesh.console.incidents.incident_log import AGAIN, IncidentLog, unresolved
from mesh.console.queries import run_history
from tests.mesh.console.conftest import Kept, Running

SECOND = 1_000_000
THEN = 1_700_000_000 * SECOND
DOWN = Alert("ServiceDown", "survey", "survey does not respond.", "survey")
BURNS = Alert("AvailabilityBudgetBurnsFast", "survey", "fails", "survey.X")
CHANGE = Change(THEN - 5 * SECOND, "restart survey", "ada", "survey")


class Console:
    """A sequence of runs of the console's log of incidents, over one store."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def run(self, now: int, alive: int) -> IncidentLog:
        """Start a run at *now*, after one that was last alive at *alive*."""
        log = IncidentLog()
        log.write_to(self._kept.writer.do)

        def read(_: Any, db: sqlite3.Connection) -> None:
            db.execute("UPDATE runs SET seen = ?", (alive,))
            run_history.begin(db, now)
            earlier, seen = unresolved(db)
            log.resume(earlier, alive=seen, now=now)

        self._kept.writer.do(read)
        self._kept.writer.flush()
        return log


def see(log: IncidentLog, now: int, *alerts: Alert, changes: tuple[Change, ...] = ()) -> Any:
    """Evaluate *alerts*, of which the first is the cause of the others; return what fires."""
    causes = [Cause(alerts[0], alerts[1:])] if alerts else []
    log.update(causes, lambda *_: list(changes), now, lambda _: THEN)
    return [one.to_json() for one in log.firing()]


@pytest.fixture
def console(kept: Kept) -> Console:
    """A console with an incident that fires."""
    console = Console(kept)
    first = console.run(THEN - SECOND, THEN - SECOND)
    see(first, THEN, DOWN, BURNS, changes=(CHANGE,))
    kept.writer.flush()
    return console


def test_continued(console: Console) -> None:
    """
    An incident that still fires keeps its id, its start, its changes and its alerts' beginnings.
    """
    now = THEN + 60 * SECOND
    log = console.run(now, THEN + 50 * SECOND)
    (found,) = see(log, now + 5 * SECOND, DOWN)

    assert ("firing", THEN) == (found["state"], parse(found["since"]))
    assert THEN == parse(found["cause"]["since"])
    assert [("restart survey", "ada")] == [(c["what"], c["who"]) for c in found["changes"]]
    (again,) = see(log, now + 8 * SECOND, DOWN, changes=(CHANGE,))
    assert 1 == len(again["changes"])
    assert found["id"] == again["id"]


def test_resolved(console: Console, kept: Kept) -> None:
    """
    An incident that no longer fires is resolved a minute after the restart: until then, processes
    that do not respond may be starting.
    """
    now = THEN + 60 * SECOND
    log = console.run(now, THEN + 50 * SECOND)
    assert 1 == len(see(log, now + us(STARTING) + 5 * SECOND))
    assert [] == see(log, now + us(AGAIN) + SECOND)
    kept.writer.flush()
    assert [(now,)] == kept.rows("SELECT ended FROM incidents")


def test_long_ago(console: Console, kept: Kept) -> None:
    """
    After a long interruption, nobody knows when an incident ended: it ended with the last run.
    """
    alive = THEN + 50 * SECOND
    log = console.run(THEN + 3600 * SECOND, alive)
    kept.writer.flush()

    assert [] == log.firing()
    assert [(alive,)] == kept.rows("SELECT ended FROM incidents")


async def test_beginnings(running: Running) -> None:
    """
    When an alert began to fire is known after a restart: it is not the effect of a later cause.
    """
    log = running.context.evaluator.incidents
    now = running.context.now()
    long_ago = now - 3600 * SECOND
    log.update([Cause(BURNS, ())], lambda *_: [], now, lambda _: long_ago)

    def begin(_: Any, db: sqlite3.Connection) -> None:
        run_history.begin(db, now)

    running.context.writer.do(begin)
    running.context.writer.flush()
    resumed = Evaluator()
    await resumed.resume(running.context)
    began = resumed._beginnings([DOWN, BURNS], now + SECOND)

    assert [now + SECOND, long_ago] == [began(DOWN), began(BURNS)]
