"""Prometheus and Alertmanager with a running mesh."""

import time
from typing import Any

import httpx
import pytest

from mesh import topology
from mesh.local.processes.environment import monitoring_programs
from mesh.topology import MONITORING

WAIT_SECONDS = 90.0

pytestmark = pytest.mark.skipif(
    set(monitoring_programs()) != set(MONITORING),
    reason="Prometheus or Alertmanager is missing: apt-get install them",
)


def ask(live: Any, path: str) -> Any:
    base = int(live["urls"]["app"].rpartition(":")[2])
    url = f"http://127.0.0.1:{base + topology.PROMETHEUS}/api/v1/{path}"
    return httpx.get(url, trust_env=False).json()["data"]


def test_everything_is_scraped(live: Any) -> None:
    """
    Every process that serves metrics and every proxy is scraped, and alerts have a destination.
    """
    expected = {p["name"] for p in live["processes"] if p["kind"] in {"service", "proxy"}}

    def scraped() -> set[str]:
        found = ask(live, "targets?state=active")["activeTargets"]
        return {t["labels"].get("process", "") for t in found if "up" == t["health"]}

    ends = time.monotonic() + WAIT_SECONDS
    while not expected <= scraped() and time.monotonic() < ends:
        time.sleep(0.2)
    assert expected == scraped()
    assert 1 == len(ask(live, "alertmanagers")["activeAlertmanagers"])


def test_rules(live: Any) -> None:
    """Prometheus evaluates the rules of the contracts without errors."""
    found = [rule for group in ask(live, "rules")["groups"] for rule in group["rules"]]

    assert "ServiceDown" in {rule["name"] for rule in found}
    assert [] == [rule["name"] for rule in found if rule.get("lastError")]


def test_alerts_in_the_console(live: Any) -> None:
    """
    The console shows the alerts of the real Alertmanager with their runbooks, and scrapes
    everything.
    """
    base = int(live["urls"]["app"].rpartition(":")[2])
    alert = {
        "labels": {"alertname": "OnlyATest", "severity": "ticket", "team": "mesh"},
        "annotations": {"summary": "A test.", "runbook_url": "https://docs.example.org/README.md"},
    }
    posted = httpx.post(
        f"http://127.0.0.1:{base + topology.ALERTMANAGER}/api/v2/alerts",
        json=[alert],
        trust_env=False,
    )
    assert posted.is_success
    headers = {"authorization": f"Bearer {live['console']['token']}"}
    ends, found = time.monotonic() + WAIT_SECONDS, list[dict[str, Any]]()
    with httpx.Client(base_url=live["urls"]["console"], headers=headers, trust_env=False) as client:
        while not found and time.monotonic() < ends:
            overview = client.get("/api/overview").json()
            found = [one for one in overview["serverAlerts"] if "OnlyATest" == one["name"]]
            time.sleep(0.2)
        mesh = client.get("/api/mesh").json()

    assert ["", ""] == [server["fault"] for server in overview["alertServers"]]
    assert [("firing", "A test.", "/runbooks/README.md", "alertmanager")] == [
        (one["state"], one["message"], one["runbook"], one["source"]) for one in found
    ]
    expected = {p["name"] for p in live["processes"] if p["kind"] in {"service", "proxy"}}
    assert expected == {one["process"] for one in (*mesh["processes"], *mesh["proxies"])}
