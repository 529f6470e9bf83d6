"""Root cause analysis: explanations, one incident per cause, one name per alert."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.console.incidents import alert_table, causes
from mesh.console.incidents.alert import Alert
from mesh.console.incidents.causes import Cause
from mesh.console.incidents.incident_log import IncidentLog
from mesh.console.incidents.observations import Observations
from mesh.console.intake.envoy_admin import Proxy
from mesh.console.intake.scraper import Seen
from mesh.console.settings import Target
from mesh.contract import policy

SECOND = 1_000_000
BURNS = "AvailabilityBudgetBurnsFast"


def alert(name: str, service: str, subject: str = "") -> Alert:
    return Alert(name, service, f"{name} of {service}.", subject)


def grouped(*alerts: Alert) -> list[tuple[str, str, list[str]]]:
    dependencies = causes.dependencies(policy.load())
    return [
        (c.alert.name, c.alert.service, sorted(f"{e.name} {e.service}" for e in c.effects))
        for c in causes.group(alerts, dependencies)
    ]


@pytest.mark.parametrize(
    ("cause", "effects"),
    [
        pytest.param(
            ("ServiceDown", "survey"),
            [
                *(("BreakerOpen", "survey"), ("HostEjected", "survey"), (BURNS, "survey")),
                *((BURNS, "gateway"), ("GatewayErrors", "gateway"), (BURNS, "health")),
                *(("ProxyDown", "survey"), ("RetryStorm", "survey")),
            ],
            id="a dead service",
        ),
        pytest.param(
            ("RedcapFailing", "redcap"),
            [
                *(("RedcapBreakerOpen", "redcap"), (BURNS, "survey"), ("GatewayErrors", "gateway")),
                *(("HostEjected", "survey"), ("MethodSlowerThanPromised", "survey")),
            ],
            id="REDCap unavailable",
        ),
        pytest.param(
            ("DiskFilling", "auth"),
            [("DatabaseSlow", "auth"), (BURNS, "auth"), ("GatewayErrors", "gateway")],
            id="a full disk",
        ),
        pytest.param(
            ("DiskFilling", "host"),
            [("DatabaseSlow", "auth"), ("ServiceDown", "survey"), ("GatewayErrors", "gateway")],
            id="the full disk of the machine",
        ),
        pytest.param(
            ("CanaryFailing", "survey"),
            [("HostEjected", "survey"), (BURNS, "survey"), ("GatewayErrors", "gateway")],
            id="a bad canary",
        ),
        pytest.param(
            ("LimitRefusals", "gateway"),
            [("EventLoopLate", "gateway"), (BURNS, "survey"), ("GatewayErrors", "gateway")],
            id="an overloaded gateway",
        ),
        pytest.param(
            ("ServiceSaturated", "survey"),
            [("BreakerOpen", "survey"), ("MethodSlowerThanPromised", "survey")],
            id="overload",
        ),
    ],
)
def test_one_cause(cause: tuple[str, str], effects: list[tuple[str, str]]) -> None:
    """
    All alerts that one cause explains are grouped under it, in any order.
    """
    every = [alert(*one) for one in (*effects, cause)]

    for order in (every, every[::-1]):
        assert [(*cause, sorted(" ".join(one) for one in effects))] == grouped(*order)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("ServiceDown", "survey"), ("ServiceDown", "auth")),
        (("RedcapFailing", "redcap"), ("ServiceDown", "auth")),
        (("RedcapFailing", "redcap"), ("MailFailing", "mail")),
        (("ServiceDown", "survey"), ("CallersRefused", "survey")),
        (("ServiceDown", "health"), (BURNS, "survey")),
        (("RedcapSlow", "redcap"), ("DatabaseSlow", "auth")),
        (("RedcapFailing", "redcap"), (BURNS, "unknown")),
        (("RedcapFailing", "redcap"), ("CanaryFailing", "survey")),
        (("DiskFilling", "host"), ("RedcapFailing", "redcap")),
    ],
)
def test_two_causes(first: tuple[str, str], second: tuple[str, str]) -> None:
    """
    An alert that does not explain another remains a separate incident.
    """
    assert 2 == len(grouped(alert(*first), alert(*second)))


def test_still_firing_elsewhere() -> None:
    """
    An alert that only Prometheus still reports does not explain new alerts.
    """
    over = Alert("RedcapFailing", "redcap", "REDCap fails.", source="prometheus")

    assert 2 == len(grouped(over, alert("RetryStorm", "survey")))
    assert 1 == len(grouped(alert("RedcapFailing", "redcap"), alert("RetryStorm", "survey")))


def test_names() -> None:
    """
    Every alert of the console is one of the Prometheus rules, with a runbook.
    """
    package = Path(causes.__file__).parent
    source = (package / "alerts.py").read_text() + (package / "causes.py").read_text()
    known = alert_table.rules()
    used = {word.rstrip(",:") for word in source.replace('"', " ").split()} & set(known)

    assert {"ServiceDown", "RedcapFailing", "ClockWrong", "CanaryFailing"} <= used
    assert not set().union(*causes._RANKS) - set(known)
    for name in known:
        assert (Path("docs/runbooks") / alert_table.runbook(name)).is_file(), name


class TestIncidentLog:
    def setup_method(self) -> None:
        self.log = IncidentLog()
        self.now = 1_700_000_000 * SECOND
        self.began = dict[Alert, int]()

    def see(self, *alerts: Alert, after: int = 3) -> list[dict[str, Any]]:
        for one in alerts:
            self.began.setdefault(one, self.now)
        found = causes.group(alerts, causes.dependencies(policy.load()), self.began.__getitem__)
        return self.update(*found, after=after)

    def update(self, *found: Cause, after: int = 3) -> list[dict[str, Any]]:
        self.now += after * SECOND
        self.log.update(found, lambda since, until: [], self.now)
        return [one.to_json() for one in self.log.firing()]

    def test_shape(self) -> None:
        """
        An incident has the fields of the console API (design, section 5).
        """
        (found,) = self.see(alert("ServiceDown", "survey"), alert(BURNS, "survey", "survey.X"))

        assert ("firing", "console") == (found["state"], found["source"])
        assert {"alert", "service", "summary", "since"} == set(found["cause"])
        assert [(BURNS, "survey")] == [(one["alert"], one["service"]) for one in found["effects"]]
        assert ([], "", "/runbooks/service-down.md") == (
            found["changes"],
            found["traceId"],
            found["runbook"],
        )

    def test_severity(self) -> None:
        """
        A ticket whose effects page someone is a page, as in Alertmanager, and comes first.
        """
        old, retries = alert("BackupOld", "auth"), alert("RetryStorm", "survey")
        first, second = self.see(old), self.see(old, retries)
        assert ["ticket"] * 3 == [one["severity"] for one in (*first, *second)]

        (worst, _) = self.see(old, retries, alert(BURNS, "survey"))
        assert (retries.name, "page") == (worst["cause"]["alert"], worst["severity"])
        assert ["ticket"] * 2 == [one["severity"] for one in self.see(old, retries)]

    def test_same_alert(self) -> None:
        """
        The same alert of a proxy, which has the certificate of its service, is not an effect.
        """
        process, proxy = (
            alert("CertificateExpiring", "health", p) for p in ("health", "health-envoy")
        )
        (found,) = self.see(process, replace(proxy, message="Of the proxy."))

        assert ([], ["Of the proxy."]) == (found["effects"], found["messages"])

    def test_symptom_first(self) -> None:
        """
        A cause found after its symptom takes over the incident and its start.
        """
        (first,) = self.see(alert(BURNS, "survey"))
        (second,) = self.see(alert(BURNS, "survey"), alert("RedcapFailing", "redcap"))

        assert (first["id"], first["since"]) == (second["id"], second["since"])
        assert "RedcapFailing" == second["cause"]["alert"]

    @pytest.mark.parametrize(
        ("cause", "symptom"),
        [
            pytest.param("survey", "survey", id="same service"),
            pytest.param("survey", "auth", id="a service that depends on it"),
        ],
    )
    def test_earlier_symptom(self, cause: str, symptom: str) -> None:
        """
        What began long before a cause is not its effect: the new incident has its own start.
        """
        self.see(alert(BURNS, symptom))
        for _ in range(200):
            (first,) = self.see(alert(BURNS, symptom))
        found = self.see(alert(BURNS, symptom), alert("ServiceDown", cause))

        assert [("ServiceDown", []), (BURNS, [])] == sorted(
            ((one["cause"]["alert"], one["effects"]) for one in found), reverse=True
        )
        assert first["id"] in {one["id"] for one in found}
        assert 2 == len({one["since"] for one in found})

    def test_merged(self) -> None:
        """
        Two incidents that turn out to have one cause are merged.
        """
        one, other = alert("BreakerOpen", "survey"), alert("DatabaseSlow", "auth")
        assert 2 == len(self.update(Cause(one, ()), Cause(other, ())))
        (whole,) = self.update(Cause(alert("DiskFilling", "auth"), (one, other)))

        assert "DiskFilling" == whole["cause"]["alert"]

    def test_continued(self) -> None:
        """
        Remaining alerts of a cause continue its incident; another service gets a new one.
        """
        (first,) = self.see(alert("RedcapFailing", "redcap"))
        (second,) = self.see(alert("RedcapSlow", "redcap"))

        assert first["id"] == second["id"]
        assert 2 == len(self.see(alert("MailFailing", "mail")))

    def test_flapping(self) -> None:
        """
        An alert near its threshold does not rename the incident each time it comes or goes.
        """
        slow, burns = alert("MethodSlowerThanPromised", "survey"), alert(BURNS, "survey")
        self.see(burns)
        for firing in ([slow, burns], [burns], [slow], [slow, burns], [slow]):
            (found,) = self.see(*firing)
            assert BURNS == found["cause"]["alert"]
        for _ in range(8):
            (found,) = self.see(slow)

        assert (slow.name, []) == (found["cause"]["alert"], found["effects"])

    def test_separate_causes(self) -> None:
        """
        Two causes on one service that do not explain each other keep their incidents.
        """
        ended = replace(alert("ServiceDown", "survey"), source="alertmanager")
        canary = alert("CanaryFailing", "survey")
        self.see(canary)
        first = self.see(ended, canary)
        for _ in range(3):
            found = self.see(ended, canary)

        assert 2 == len(found)
        assert {one["id"] for one in first} == {one["id"] for one in found}

    def test_resolved(self) -> None:
        """
        An incident is resolved after its alerts have been inactive for a while, not at the first
        gap.
        """
        self.see(alert("ServiceDown", "survey"))
        assert 1 == len(self.see())
        assert 1 == len(self.see(alert("ServiceDown", "survey")))
        assert [] == self.see(after=30)


class TestObservations:
    def seen(self, started: float) -> list[Seen]:
        target = Target(process="survey", url="http://127.0.0.1:1/metrics")
        return [Seen(target, fault="", gauges={"process_start_time_seconds": started})]

    def test_unplanned(self) -> None:
        """
        An unplanned restart of a process is detected, and expires later.
        """
        observed, now = Observations(), 1_700_000_100 * SECOND
        observed.note_scrape(self.seen(1_700_000_000), now)
        assert "" == observed.unplanned_restart("survey", now)
        observed.note_scrape(self.seen(1_700_000_099), now)

        assert "restarted" in observed.unplanned_restart("survey", now)
        assert ["survey ended unexpectedly"] == [c.what for c in observed.changes(0, now)]
        assert "" == observed.unplanned_restart("survey", now + 300 * SECOND)

    @pytest.mark.parametrize(
        ("order", "service", "planned"),
        [
            ("restart", "survey", True),
            ("restart", "auth", False),
            ("canary promote", "survey", True),
            # It starts a process beside those there are.
            ("canary start", "survey", False),
        ],
    )
    def test_planned(self, order: str, service: str, planned: bool) -> None:
        """
        A restart requested by a control action is a change with an operator, not an incident.
        """
        observed, now = Observations(), 1_700_000_100 * SECOND
        observed.note_scrape(self.seen(1_700_000_000), now)
        item = {"at": now - 5 * SECOND, "order": order, "by": "ada", "fault": ""}
        observed.note_actions([item | {"asked": {"service": service}}], int)
        observed.note_scrape(self.seen(1_700_000_099), now)

        assert planned == (observed.unplanned_restart("survey", now) == "")
        assert (f"{order} {service}", "ada") in [(c.what, c.who) for c in observed.changes(0, now)]

    def test_configuration(self) -> None:
        """
        A proxy that gets other routes, weights or faults is a change, unless an operator's action
        explains it; what stays is none.
        """
        observed, now = Observations(), 1_700_000_100 * SECOND
        target = Target(process="survey-envoy", url="http://127.0.0.1:1")

        def scrape(at: int, weights: list[dict[str, Any]]) -> None:
            proxy = Proxy(version="1", state="LIVE", uptime_seconds=900.0, weights=weights)
            observed.note_scrape([Seen(target, at=at, fault="", proxy=proxy)], at)

        halved = [{"path": "/x", "clusters": {"survey": 50, "survey_canary": 50}}]
        for seconds, weights in ((0, []), (5, []), (10, halved), (15, halved), (200, [])):
            scrape(now + seconds * SECOND, weights)
        action = {"at": now + 195 * SECOND, "order": "canary abort", "by": "ada", "fault": ""}
        observed.note_actions([action | {"asked": {"service": "survey"}}], int)

        assert ["canary abort survey", "configuration of survey-envoy changed: weights"] == [
            change.what for change in observed.changes(0, now + 300 * SECOND)
        ]

    def test_clock(self) -> None:
        """
        A clock that becomes wrong is one change, however long it stays wrong.
        """
        observed, now = Observations(), 1_700_000_100 * SECOND
        for seconds in range(0, 60, 3):
            observed.note_clocks({"gateway": 120.2}, now + seconds * SECOND)

        assert ["clock of gateway stepped: 120 s ahead"] == [
            change.what for change in observed.changes(0, now + 300 * SECOND)
        ]
