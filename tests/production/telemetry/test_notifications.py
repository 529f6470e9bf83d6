"""Real faults and their notifications: one page per cause, none after it is over."""

import asyncio
import os
import signal
import time
from collections.abc import Set
from functools import partial
from typing import Any

from tests.e2e import faults
from tests.observability.servers import wait_for
from tests.production.telemetry.site import PACE, Site

ALERT = "ErrorsAboveFivePercent"
SLOW = {"LatencyBudgetBurnsFast", "MethodAboveOneSecond"}
"""Pages about latency: on a busy machine they are right, and another cause."""


def test_hung_edge(site: Site) -> None:
    """
    A hanging proxy at the edge pages once, by webhook and mail, and its end is reported.
    """
    since = before_a_fault(site)
    pid = site.mesh.pid("gateway-envoy")
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for("the page", lambda: "ProxyDown" in site.pages("firing", since))
        wait_for("the mail", lambda: any("ProxyDown" in s for s in site.subjects()))
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for("the end", lambda: "ProxyDown" in site.pages("resolved", since))

    assert {"ProxyDown"} == site.pages("firing", since) - SLOW


def test_failing_service(site: Site) -> None:
    """
    A failing method of Survey pages once: the burn rate of its budget and the errors of the
    gateway are effects. Afterwards nobody is paged.
    """
    since = before_a_fault(site)
    control(site, "fault", "add", "survey.ListRequests", "--abort", "UNAVAILABLE")
    try:
        wait_for("the page", lambda: ALERT in site.pages("firing", since))
        # Long enough for every alert of this fault to become active.
        wait_for("the effect", lambda: site.query(firing("GatewayErrors")))
        wait_for("the retries", lambda: "RetryStorm" in site.mailed())
    finally:
        control(site, "fault", "clear")
    wait_for("the end", lambda: ALERT in site.pages("resolved", since))
    wait_for("calm", lambda: not site.query(firing(".*Errors.*|Availability.*")))

    assert {ALERT} == site.pages("firing", since) - SLOW


def test_slow_method(site: Site) -> None:
    """
    A method that is too slow fires both latency alerts and pages about nothing else.
    """
    since = before_a_fault(site, besides=set())
    control(site, "fault", "add", "survey.ListRequests", "--delay", "1500ms")
    try:
        for name in sorted(SLOW):
            wait_for(name, partial(site.query, firing(name)))
        wait_for("the page", lambda: "LatencyBudgetBurnsFast" in site.pages("firing", since))
    finally:
        control(site, "fault", "clear")
    wait_for("the end", lambda: SLOW & site.pages("resolved", since))

    assert site.pages("firing", since) <= SLOW


def test_failing_redcap(site: Site) -> None:
    """
    A REDCap that always fails pages once: that it is not called any more explains its failures,
    and those of Survey and the gateway.
    """
    since = before_a_fault(site)
    mesh = faults.Mesh(site.mesh.ready, site.mesh.data, appwrite=None, small_disk=False)
    with faults.redcap(mesh, mode="500", error_rate=1.0):
        wait_for("the page", lambda: "RedcapBreakerOpen" in site.pages("firing", since))
        for effect in ("RedcapFailing", "GatewayErrors"):
            wait_for(effect, partial(site.query, firing(effect)))
        # Alertmanager would have sent a page by then.
        time.sleep(PACE.seconds(minutes=1))

    assert {"RedcapBreakerOpen"} == site.pages("firing", since) - SLOW


def test_heartbeat(site: Site) -> None:
    """
    The heartbeat arrives repeatedly, only at its own receiver.
    """

    def beats() -> list[dict[str, Any]]:
        return [page for page in site.paged if page["receiver"] == "heartbeat"]

    wait_for("two heartbeats", lambda: len(beats()) >= 2)

    assert {"Watchdog"} == {a["labels"]["alertname"] for b in beats() for a in b["alerts"]}
    assert "Watchdog" not in site.pages("firing")


def before_a_fault(site: Site, besides: Set[str] = SLOW) -> int:
    """Wait until no page except some is active; return the number of messages so far."""
    others = "|".join(sorted(besides))
    active = f'ALERTS{{alertstate="firing",severity="critical",alertname!~"{others}"}}'
    wait_for("calm", lambda: not site.query(active), said=lambda: site.query(active))
    return len(site.paged)


def firing(names: str) -> str:
    """Return the query for firing alerts, by a regular expression of names."""
    return f'ALERTS{{alertstate="firing",alertname=~"{names}"}}'


def control(site: Site, *arguments: str) -> None:
    """Run an ``amarre`` command on the mesh."""
    asyncio.run(site.mesh.amarre(*arguments))
