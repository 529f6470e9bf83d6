"""Alerts that the console evaluates from scrapes and counters."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mesh.console.incidents import alerts
from mesh.console.incidents.alert import Situation
from mesh.console.incidents.observations import Observations
from mesh.console.intake.clock_offset import ClockOffsets
from mesh.console.intake.envoy_admin import Proxy
from mesh.console.intake.scraper import Seen
from mesh.console.settings import Target
from mesh.console.store import schema
from mesh.contract import policy

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
FAST = json.dumps({"0.001": 30, "+Inf": 30})


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = schema.open_writer(tmp_path / "console.sqlite")
    yield opened
    opened.close()


def found(
    db: sqlite3.Connection, *seen: Seen, folder: Path, observed: Observations | None = None
) -> list[tuple[str, str]]:
    """Return name and service of every alert."""
    situation = Situation(
        mesh=policy.load(),
        seen=seen,
        observed=observed or Observations(),
        clocks=ClockOffsets(lambda: NOW),
        certificates=None,
        database=folder / "console.sqlite",
        write_fault="",
        now=NOW,
    )
    return [
        (one.name, one.service)
        for one in alerts.evaluate(db, situation)
        if one.name != "DiskFilling"  # The disk of whoever runs the tests.
    ]


def process(name: str, **dependencies: bool) -> Seen:
    target = Target(process=name, url="http://127.0.0.1:1/metrics")
    named = {key.replace("_", " "): value for key, value in dependencies.items()}
    return Seen(target, at=NOW, up_since=1, fault="", dependencies=named)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (process("survey", redcap=False), ("RedcapFailing", "redcap")),
        (process("auth", mail=False), ("MailFailing", "mail")),
        (process("auth", identity=False), ("AppwriteFailing", "identity")),
        (process("auth", database_writes=False), ("DatabaseSlow", "auth")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_checked_dependency(
    db: sqlite3.Connection, tmp_path: Path, seen: Seen, expected: tuple[str, str]
) -> None:
    """
    A dependency whose health checks fail alerts without any traffic; a healthy one does not.
    """
    assert [expected] == found(db, seen, folder=tmp_path)
    holds = dict.fromkeys(seen.dependencies, True)
    well = Seen(seen.target, at=NOW, up_since=1, fault="", dependencies=holds)
    assert [] == found(db, well, folder=tmp_path)


@pytest.mark.parametrize(
    ("caller", "rpc", "expected"),
    [
        ("health", "survey.GetLink", [("CallersRefused", "survey")]),
        # The contract names the gateway: what is refused then is a user, not a caller.
        ("gateway", "survey.GetLink", []),
        ("health", "unknown.Method", []),
    ],
)
def test_caller_that_proxies_refuse(
    db: sqlite3.Connection, tmp_path: Path, caller: str, rpc: str, expected: Any
) -> None:
    """
    Calls that a proxy denies never reach the service; their spans name caller and method.
    """
    row = (NOW // (60 * SECOND), caller, "survey", rpc, 0, 30, 0, 30)
    db.execute("INSERT INTO edges VALUES (?,?,?,?,?,?,?,?)", row)

    assert expected == found(db, folder=tmp_path)


@pytest.mark.parametrize(("refused", "expected"), [(50, [("LimitRefusals", "gateway")]), (5, [])])
def test_overload(db: sqlite3.Connection, tmp_path: Path, refused: int, expected: Any) -> None:
    """
    A gateway that rejects many requests above its limits is overloaded; a few do not alert.
    """
    labels = json.dumps({"limit": "requests_in_flight"})
    db.execute(
        "INSERT INTO series VALUES (1, 'gateway', ?, ?, 'counter', '', '', 0)",
        ("amarre_limit_refusals", labels),
    )
    for at, value in ((NOW - 60 * SECOND, 7), (NOW - SECOND, 7 + refused)):
        db.execute("INSERT INTO points VALUES (1, ?, ?, 0, '', 0)", (at, value))

    assert expected == found(db, folder=tmp_path)


class TestCountersOfProxies:
    """Counters of proxies between two scrapes."""

    def alerts(self, folder: Path, db: sqlite3.Connection, *counters: dict[str, float]) -> Any:
        """Return the alerts after scrapes of the gateway's proxy with *counters*, 5 s apart."""
        observed, target = Observations(), Target(process="gateway-envoy", url="http://127.0.0.1:1")
        for ago, values in zip(range(5 * len(counters) - 5, -1, -5), counters, strict=True):
            at = NOW - ago * SECOND
            proxy = Proxy(version="", state="LIVE", uptime_seconds=900.0 - ago, counters=values)
            observed.note_scrape([Seen(target, at=at, up_since=1, fault="", proxy=proxy)], at)
        return found(db, folder=folder, observed=observed)

    @pytest.mark.parametrize(
        ("counter", "refused", "expected"),
        [
            ("cluster.app_survey.upstream_rq_pending_overflow", 30, True),
            ("cluster.app_survey.upstream_rq_pending_overflow", 5, False),
            ("edge.http_local_rate_limit.rate_limited", 30, True),
            ("listener.127.0.0.1_3000.downstream_global_cx_overflow", 30, True),
            ("listener.127.0.0.1_3000.downstream_cx_overload_reject", 30, True),
        ],
    )
    def test_overload(
        self, db: sqlite3.Connection, tmp_path: Path, counter: str, refused: int, expected: bool
    ) -> None:
        """
        Requests that the edge rejects above its limits are counted, including all between two
        scrapes.
        """
        after = {counter: float(refused)}
        limits = [("LimitRefusals", "gateway")] if expected else []

        assert limits == self.alerts(tmp_path, db, {}, after, after)
        # Refusals before the first scrape do not count; those after a restart of the proxy do.
        assert [] == self.alerts(tmp_path, db, after, after)
        assert limits == self.alerts(tmp_path, db, {counter: 1000.0}, after)

    @pytest.mark.parametrize(
        ("overflow", "service"),
        [
            ("cluster.app.upstream_rq_active_overflow", "gateway"),
            ("cluster.survey.upstream_rq_active_overflow", "survey"),
            ("cluster.survey.upstream_rq_pending_overflow", "survey"),
            ("cluster.survey_canary.upstream_rq_active_overflow", "survey"),
        ],
    )
    def test_breaker(
        self, db: sqlite3.Connection, tmp_path: Path, overflow: str, service: str
    ) -> None:
        """
        A breaker that rejects calls concerns the service behind it, and is no limit of the edge.
        """
        for rejected, expected in ((30.0, [("BreakerOpen", service)]), (5.0, [])):
            after = {overflow: rejected}
            assert expected == self.alerts(tmp_path, db, {}, after, after)
        assert [] == self.alerts(tmp_path, db, {overflow: 30.0}, {overflow: 30.0})

    def test_breaker_at_its_limit(self, db: sqlite3.Connection, tmp_path: Path) -> None:
        """
        A breaker that has reached its limit and rejects nothing alerts nobody.
        """
        breakers = [{"cluster": "survey", "kind": "rq"}]
        proxy = Proxy(version="", state="LIVE", uptime_seconds=900.0, breakers=breakers)
        target = Target(process="gateway-envoy", url="http://127.0.0.1:1")
        seen = Seen(target, at=NOW, up_since=1, fault="", proxy=proxy)

        assert [] == found(db, seen, folder=tmp_path)

    @pytest.mark.parametrize(("total", "expected"), [(1000, []), (100, ["RetryStorm"])])
    def test_retries(
        self, db: sqlite3.Connection, tmp_path: Path, total: int, expected: list[str]
    ) -> None:
        """
        A retry storm is measured as a share of all calls, not by number.
        """
        of = "cluster.survey.upstream_rq"
        after = {f"{of}_retry": 30.0, f"{of}_total": float(total)}

        assert expected == [name for name, _ in self.alerts(tmp_path, db, {}, after)]


def test_streams_that_stay_open(db: sqlite3.Connection, tmp_path: Path) -> None:
    """
    Failed attempts to open a stream at startup do not burn the error budget; failed calls do.
    """
    for method, expected in (
        ("WatchRevocations", []),
        ("VerifySession", [("AvailabilityBudgetBurnsFast", "auth")]),
    ):
        row = (NOW // SECOND - 20, "gateway", "auth", method, "UNAVAILABLE", "", 30, 1, FAST)
        db.execute("INSERT INTO calls VALUES (?,?,?,?,?,?,?,?,?)", row)
        assert expected == found(db, folder=tmp_path)


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        pytest.param({"named_at": NOW - 10 * SECOND}, [], id="named just now"),
        pytest.param({"up_since": NOW - 10 * SECOND, "fault": ""}, [], id="answers just now"),
        pytest.param(
            {"named_at": NOW - 40 * SECOND},
            ["HostEjected auth", "ServiceDown auth"],
            id="never answers",
        ),
        pytest.param(
            {"up_since": NOW - 10 * SECOND},
            ["HostEjected auth", "ServiceDown auth"],
            id="answers no more",
        ),
        pytest.param(
            {"up_since": NOW - 40 * SECOND, "fault": ""}, ["HostEjected auth"], id="answers others"
        ),
    ],
)
def test_start(
    db: sqlite3.Connection, tmp_path: Path, auth: dict[str, Any], expected: list[str]
) -> None:
    """
    Reports of proxies about a starting process are ignored; about any other process they alert.
    """
    host = {"cluster": "auth", "address": "127.0.0.1:2", "ejected": False, "failing": True}
    proxy = Proxy(version="", state="LIVE", uptime_seconds=1.0, hosts=[host])
    target = Target(process="survey-envoy", url="http://127.0.0.1:1")
    watching = Seen(target, at=NOW, up_since=1, fault="", proxy=proxy)
    facts: dict[str, Any] = {"at": NOW, "fault": "does not respond"} | auth
    process = Seen(Target(process="auth", url="http://127.0.0.1:1/metrics"), **facts)

    alerts = found(db, watching, process, folder=tmp_path)
    assert expected == sorted(f"{name} {service}" for name, service in alerts)


class TestRestartOfProxy:
    def seen(self, at: int, uptime: float) -> list[Seen]:
        target = Target(process="survey-envoy", url="http://127.0.0.1:1")
        proxy = Proxy(version="", state="LIVE", uptime_seconds=uptime)
        return [Seen(target, at=NOW + at * SECOND, fault="", proxy=proxy)]

    @pytest.mark.parametrize(
        ("uptime", "restarted"),
        [
            pytest.param(104.0, False, id="the same"),
            # Its uptime was read 12 s before the scrape ended, on a busy machine.
            pytest.param(101.0, False, id="read long before"),
            pytest.param(2.0, True, id="another"),
        ],
    )
    def test_uptime(self, uptime: float, restarted: bool) -> None:
        """
        Only an Envoy whose uptime decreased has restarted.
        """
        observed, later = Observations(), NOW + 17 * SECOND
        observed.note_scrape(self.seen(0, 100.0), NOW)
        observed.note_scrape(self.seen(17, uptime), later)

        assert restarted == bool(observed.unplanned_restart("survey-envoy", later))
