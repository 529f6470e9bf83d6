"""The process list: restarts with reasons, deployments, limits, delays."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mesh.console.incidents.observations import Observations
from mesh.console.intake.envoy_admin import Load, Proxy
from mesh.console.intake.scraper import Seen
from mesh.console.queries import process_list
from mesh.console.settings import Target
from mesh.local.control.audit_log import READ_ONLY
from tests.mesh.console.conftest import Start

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * SECOND)


def rfc3339(at: int) -> str:
    return datetime.fromtimestamp(at / SECOND, UTC).isoformat()


def process(name: str, *, started: int = NOW, version: str = "1.0", **gauges: float) -> Seen:
    target = Target(process=name, url="http://127.0.0.1:1/metrics")
    known = {"process_start_time_seconds": started / SECOND, **gauges}
    return Seen(target, at=NOW, fault="", gauges=known, version=version)


def replaced(observed: Observations) -> None:
    """Observe survey before and after a restart that takes a minute."""
    observed.note_scrape([process("survey", started=NOW - 60 * SECOND)], NOW - 30 * SECOND)
    observed.note_scrape([process("survey", started=NOW)], NOW + SECOND)


def action(name: str, service: str, *, ago: int, fault: str = "") -> dict[str, Any]:
    return {
        "order": name,
        "asked": {"service": service},
        "by": "ines (terminal)",
        "at": rfc3339(NOW - ago * SECOND),
        "fault": fault,
    }


def exited(process: str, status: int, *, ago: int) -> dict[str, Any]:
    return {"process": process, "status": status, "at": rfc3339(NOW - ago * SECOND)}


def test_calls_change_nothing() -> None:
    """
    Of the control actions, only those that change the mesh precede an incident, not direct calls.
    """
    observed = Observations()
    actions = [action("call", "survey", ago=5), action("restart", "survey", ago=9)]
    observed.note_actions(actions, micros)

    assert ["restart survey"] == [one.what for one in observed.changes(0, NOW)]


@pytest.mark.parametrize(
    ("order", "asked", "words"),
    [
        (
            "fault add",
            {"method": "auth.LogIn", "abort": "UNAVAILABLE", "delay_ms": 1.5, "percent": 60.0},
            "fault add auth.LogIn abort UNAVAILABLE delay 1.5 ms percent 60 %",
        ),
        (
            "canary start",
            {"service": "survey", "weight": 10, "manual": True, "command": None},
            "canary start survey weight 10 % manual",
        ),
        ("fault clear", {"method": ""}, "fault clear"),
    ],
)
def test_words(order: str, asked: dict[str, Any], words: str) -> None:
    """
    A control action is shown with the name and unit of each value.
    """
    observed = Observations()
    observed.note_actions([action(order, "", ago=5) | {"asked": asked}], micros)

    assert [words] == [one.what for one in observed.changes(0, NOW)]


class TestRestarts:
    @pytest.mark.parametrize(
        ("status", "why"),
        [
            (-9, "was killed by SIGKILL"),
            (-99, "was killed by signal 99"),
            (1, "ended with status 1"),
            (None, "ended unexpectedly"),
        ],
    )
    def test_reason(self, status: int | None, why: str) -> None:
        """
        A restart shows how the previous process ended, if the runner knows.
        """
        observed = Observations()
        if status is not None:
            observed.note_exits(
                [exited("survey", status, ago=1), exited("redcap", 1, ago=1)], micros
            )
        replaced(observed)

        assert [(NOW, why)] == observed.restarts("survey")
        assert f"{why} and was restarted" == observed.unplanned_restart("survey", NOW)

    def test_before_the_first_scrape(self) -> None:
        """
        A process that died before its first scrape counts as restarted; an old restart does not
        alert.
        """
        observed = Observations()
        observed.note_exits([exited("auth", 1, ago=3600), exited("health", -9, ago=2)], micros)

        assert [(NOW - 2 * SECOND, "was killed by SIGKILL")] == observed.restarts("health")
        assert "was killed" in observed.unplanned_restart("health", NOW)
        assert ["ended with status 1"] == [why for _, why in observed.restarts("auth")]
        assert "" == observed.unplanned_restart("auth", NOW)
        assert 2 == len(observed.changes(NOW - 3600 * SECOND, NOW))
        assert [] == observed.restarts("survey")

    def test_asked_for(self) -> None:
        """
        A requested restart names its operator and does not alert.
        """
        observed = Observations()
        observed.note_actions([action("restart", "survey", ago=5)], micros)
        replaced(observed)

        assert [(NOW, "restart survey by ines (terminal)")] == observed.restarts("survey")
        assert "" == observed.unplanned_restart("survey", NOW)

    def test_reading_them_is_no_action(self) -> None:
        """
        The console polls ended processes every few seconds; the audit log does not contain that.
        """
        assert "exits" in READ_ONLY


class TestDeployment:
    def test_action(self) -> None:
        """
        The last deployment is the newest successful action that replaced the service.
        """
        observed = Observations()
        observed.note_actions(
            [
                action("restart", "auth", ago=1),
                action("restart", "survey", ago=2, fault="It does not start."),
                action("canary promote", "survey", ago=9),
                action("restart", "survey", ago=99),
            ],
            micros,
        )
        found = observed.deployment("survey")

        assert found is not None
        assert ("canary promote survey", "ines (terminal)") == (found.what, found.who)
        assert NOW - 9 * SECOND == found.at
        assert observed.deployment("health") is None

    def test_version(self) -> None:
        """
        If only the cluster replaces processes, a changed version shows a deployment.
        """
        observed = Observations()
        for version, at in (("1.0", NOW), ("1.0", NOW + 1), ("1.1", NOW + 2)):
            observed.note_scrape([process("survey", version=version)], at)
        found = observed.deployment("survey")

        assert found is not None
        assert ("deploy survey: version 1.1 after 1.0", NOW + 2) == (found.what, found.at)


async def test_list(start: Start) -> None:
    """
    Each limit has its usage, fullest first; unknown values are null.
    """
    async with start() as running:
        now = running.context.now()
        survey = process(
            "survey",
            started=now,
            amarre_rpc_server_in_flight=30.0,
            process_open_fds=10.0,
            process_max_fds=1000.0,
        )
        envoy = Seen(
            Target(process="survey-envoy", url="http://127.0.0.1:1"),
            at=now,
            fault="",
            version="1.36.0",
            proxy=Proxy("1.36.0", "LIVE", 60.0, loads=[Load("auth", 3, 4)], memory_bytes=5e6),
        )
        # Not the list that is scraped: nothing answers there.
        looked_at = replace(running.context, seen=[survey, envoy])
        service, proxy = process_list.listed(looked_at, {"survey": 0.3}, now=now)
        assert [] == (await running.get("processes"))["items"]

    assert ["calls in flight", "open files"] == [one["name"] for one in service["limits"]]
    most = running.context.mesh.service("survey").max_concurrent_requests
    assert {"name": "calls in flight", "used": 30.0, "limit": most} == service["limits"][0]
    assert ("process", "1.0", 0.3, None) == (
        service["kind"],
        service["version"],
        service["eventLoopDelaySeconds"],
        service["certificate"],
    )
    assert ("proxy", "survey", "1.36.0", 5e6) == (
        proxy["kind"],
        proxy["workload"],
        proxy["version"],
        proxy["memoryBytes"],
    )
    assert [{"name": "requests to auth", "used": 3, "limit": 4}] == proxy["limits"]
    assert now - 60 * SECOND == micros(proxy["startedAt"])
