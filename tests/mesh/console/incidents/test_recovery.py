"""Alerts whose window still contains a fault that is over, and faults that follow it."""

import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.console.incidents import call_alerts, causes
from mesh.console.incidents.alert import Alert, Situation, read
from mesh.console.incidents.causes import Cause
from mesh.console.incidents.changes import us
from mesh.console.incidents.evaluator import Evaluator, first_call
from mesh.console.incidents.incident_log import QUIET, Incident, IncidentLog
from mesh.console.incidents.observations import Observations
from mesh.console.intake.clock_offset import ClockOffsets
from mesh.console.intake.envoy_admin import Proxy
from mesh.console.intake.scraper import Seen
from mesh.console.settings import Target
from mesh.console.store import schema
from mesh.contract import policy
from tests.mesh.console.conftest import Kept
from tests.mesh.console.telemetry import Batch, now

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
BURNS = Alert("AvailabilityBudgetBurnsFast", "auth", "auth.GetProfile fails.", "auth.GetProfile")
DOWN = Alert("ServiceDown", "auth", "auth is down.")
RETRIES = "cluster.auth.upstream_rq_retry", "cluster.auth.upstream_rq_total"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = schema.open_writer(tmp_path / "console.sqlite")
    yield opened
    opened.close()


def called(db: sqlite3.Connection, *calls: tuple[int, str, int]) -> None:
    """Store calls of auth.GetProfile: how many seconds ago, their code, how many."""
    for ago, code, count in calls:
        buckets = json.dumps({"0.001": count, "+Inf": count})
        row = NOW // SECOND - ago, "gateway", "auth", "GetProfile", code, "", count, 1, buckets
        db.execute("INSERT INTO calls VALUES (?,?,?,?,?,?,?,?,?)", row)


def alerts(db: sqlite3.Connection, folder: Path, observed: Observations) -> list[Alert]:
    situation = Situation(
        mesh=policy.load(),
        seen=(),
        observed=observed,
        clocks=ClockOffsets(lambda: NOW),
        certificates=None,
        database=folder / "console.sqlite",
        write_fault="",
        now=NOW,
    )
    return list(call_alerts.alerts(situation, read(db, situation), db))


@pytest.mark.parametrize(
    ("lately", "over", "message"),
    [
        (
            [(10, "UNAVAILABLE", 20)],
            False,
            "auth.GetProfile fails 100% of its calls now, 100.0% in 5 min: ",
        ),
        (
            [(10, "OK", 60)],
            True,
            "auth.GetProfile failed 40.0% of its calls in 5 min, none since 22:11:20 UTC.",
        ),
        (
            [(100, "OK", 60)],
            True,
            "auth.GetProfile failed 40.0% of its calls in 5 min, none since 22:11:20 UTC.",
        ),
        # Too few calls to tell.
        (
            [(10, "OK", 2)],
            False,
            "auth.GetProfile fails 95.2% of its calls in 5 min: ",
        ),
    ],
    ids=["goes on", "has stopped", "no calls", "unknown"],
)
def test_stopped(
    db: sqlite3.Connection,
    tmp_path: Path,
    lately: list[tuple[int, str, int]],
    over: bool,
    message: str,
) -> None:
    """
    An alert on failed calls says whether they still fail, since its window looks back for minutes.
    """
    called(db, (120, "UNAVAILABLE", 40), *lately)
    (found,) = alerts(db, tmp_path, Observations())

    assert (BURNS.name, over) == (found.name, found.over)
    assert found.message.startswith(message)
    for method in ("GetProfile", ""):
        stopped = call_alerts.last_failure(db, "auth", method, now=NOW // SECOND)
        assert (NOW // SECOND - 120 if over else 0) == stopped


@pytest.mark.parametrize("goes_on", [True, False])
def test_retries(db: sqlite3.Connection, tmp_path: Path, goes_on: bool) -> None:
    """
    A retry storm names the method that fails, while it lasts.
    """
    called(db, (20, "UNAVAILABLE", 3), (20, "OK", 1))
    target = Target(process="gateway-envoy", url="http://127.0.0.1:1")
    observed = Observations()
    for ago, retried in ((90, 0), (60, 30), (0, 60 if goes_on else 30)):
        at = NOW - ago * SECOND
        counters = dict(zip(RETRIES, (retried, 2.0 * retried), strict=True))
        proxy = Proxy(version="", state="LIVE", uptime_seconds=900.0, counters=counters)
        observed.note_scrape([Seen(target, at=at, up_since=1, fault="", proxy=proxy)], at)
    (storm,) = (one for one in alerts(db, tmp_path, observed) if one.name == "RetryStorm")

    assert goes_on != storm.over
    ending = "; auth.GetProfile fails 75% of its calls" if goes_on else ""
    assert storm.message.endswith(f"50% of its calls to auth{ending}.")


class TestIncidents:
    def setup_method(self) -> None:
        self.log, self.now = IncidentLog(), NOW
        self.began, self.ended = dict[Alert, int](), dict[Alert, int]()

    def see(self, *alerts: Alert, after: int = 3) -> list[dict[str, Any]]:
        self.now += after * SECOND
        for one in alerts:
            self.began.setdefault(one, self.now)
            if one.over:
                self.ended.setdefault(one, self.now)
        found = causes.group(
            alerts,
            causes.dependencies(policy.load()),
            self.began.__getitem__,
            lambda alert: self.ended.get(alert, sys.maxsize),
        )
        self.log.update(found, lambda since, until: [], self.now)
        return [one.to_json() for one in self.log.firing()]

    def test_another_fault(self) -> None:
        """
        What begins after an incident has recovered is another incident; each keeps its times.

        Fails if an alert that only its window keeps firing joins them.
        """
        (first,) = self.see(BURNS)
        over = replace(BURNS, over=True)
        self.began[over] = self.began[BURNS]
        (recovered,) = self.see(over)
        assert recovered["recovered"]
        found = self.see(over, DOWN, after=30)

        assert ["ServiceDown", BURNS.name] == [one["cause"]["alert"] for one in found]
        assert [False, True] == [one["recovered"] for one in found]
        assert [[], []] == [one["effects"] for one in found]
        assert first["since"] == found[1]["since"] < found[0]["since"]

        # The same method fails again, now because of the second fault.
        again = replace(BURNS, message="auth.GetProfile fails again.")
        ended = found[1]["id"]
        found = self.see(again, DOWN)
        assert [BURNS.name] == [one["alert"] for one in found[0]["effects"]]
        (rest,) = self.see(again, DOWN, after=int(QUIET.total_seconds()) + 1)
        assert found[0]["id"] == rest["id"] != ended

    def test_ends_together(self) -> None:
        """
        A cause that is over still explains effects that are over.
        """
        self.see(DOWN, BURNS)
        (found,) = self.see(*(replace(one, over=True) for one in (DOWN, BURNS)))

        assert ("ServiceDown", 1) == (found["cause"]["alert"], len(found["effects"]))

    def test_two_that_are_over(self) -> None:
        """
        Two incidents that have recovered remain two: the failures of one service were not those of
        another that depends on it.
        """
        survey = replace(BURNS, service="survey", subject="survey.ListRequests")
        self.see(BURNS)
        over = replace(BURNS, over=True)
        self.began[over] = self.began[BURNS]
        self.see(over, survey)
        ended = replace(survey, over=True)
        self.began[ended] = self.began[survey]
        found = self.see(over, ended)

        assert ["auth", "survey"] == sorted(one["cause"]["service"] for one in found)

    def test_merged(self) -> None:
        """
        The id of an incident that was merged into another one finds that one.
        """
        other = Alert("BreakerOpen", "survey", "open")
        self.log.update([Cause(BURNS, ()), Cause(other, ())], lambda *_: [], self.now)
        ids = {one.id for one in self.log.firing()}
        disk = Alert("DiskFilling", "host", "full")
        self.log.update([Cause(disk, (BURNS, other))], lambda *_: [], self.now + SECOND)
        (whole,) = self.log.firing()

        assert {whole.id} == {self.log.current(one) for one in ids}


def test_beginning() -> None:
    """
    An alert that fires once more after everything had ended begins anew.
    """
    evaluator = Evaluator()

    def began(alert: Alert, after: int) -> int:
        return (evaluator._beginnings([alert], NOW + after)(alert) - NOW) // 1

    over = replace(BURNS, over=True)
    assert [0, 0, 0, 3] == [
        began(one, after) for after, one in enumerate((BURNS, BURNS, over, BURNS))
    ]


@pytest.mark.parametrize(
    ("alert", "expected"),
    [
        (Alert("ServiceDown", "survey", "down"), "failed"),
        (Alert("ProxyDown", "health", "down"), ""),
        (Alert("RedcapFailing", "redcap", "down"), "failed"),
        (Alert("MethodSlowerThanPromised", "auth", "slow", "auth.GetProfile"), "slow"),
        (Alert("MethodSlowerThanPromised", "auth", "slow", "auth.LogIn"), ""),
    ],
    ids=lambda one: getattr(one, "service", None),
)
def test_first_call(kept: Kept, alert: Alert, expected: str) -> None:
    """
    The first trace of an incident concerns its methods or services, and began with it.
    """
    batch, ids = Batch(), {name: os.urandom(16) for name in ("before", "failed", "slow", "later")}
    for name, ago in (("before", 60), ("failed", 8), ("later", 4)):
        start = now() - ago * 1_000_000_000
        batch.rpc("survey", trace=ids[name], start=start, code="UNAVAILABLE", error=True)
    batch.rpc("auth", "amarre.auth.v1.AuthService/GetProfile", trace=ids["slow"], ms=3000)
    kept.take("traces", batch.request)
    since = now() // 1000 - us(QUIET) // 4
    incident = Incident("1", since, since, alert)
    reader = schema.open_reader(kept.path)
    found = first_call(reader, policy.load(), incident)
    reader.close()

    assert (ids[expected].hex() if expected else "") == found
