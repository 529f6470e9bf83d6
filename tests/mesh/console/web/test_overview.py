"""The overview: what fails while a service starts, cards of services, denied calls."""

import os
import re
from datetime import timedelta
from typing import Any

from playwright.async_api import Browser, expect

from mesh.console.intake.scraper import STARTED, Seen
from mesh.console.queries import mesh_status
from mesh.console.settings import Target
from tests.mesh.console.conftest import Running
from tests.mesh.console.telemetry import CLIENT, LIST, SERVER, Batch, now
from tests.mesh.console.web.conftest import BROWSER, opened

pytestmark = BROWSER

SECOND = 1_000_000
WATCH = "amarre.auth.v1.AuthService/WatchRevocations"
LOG_IN = "amarre.auth.v1.AuthService/LogIn"


def auth(began: int, up: int, process: str = "auth") -> Seen:
    """A process of Auth that began *began* and was up *up* seconds ago."""
    seen = Seen(Target(process=process, url="http://127.0.0.1:1/metrics"))
    at = now() // 1000
    seen.gauges = {STARTED: at / 1e6 - began}
    seen.at, seen.up_since, seen.fault = at, at - up * SECOND, ""
    return seen


def fail(batch: Batch, method: str, ago: float) -> None:
    """Add a call that the gateway's proxy ends."""
    start = now() - int(timedelta(seconds=ago).total_seconds() * 1e9)
    given: dict[str, Any] = {"kind": CLIENT, "start": start, "component": "proxy", "error": True}
    batch.rpc("gateway-envoy", method, "UNAVAILABLE", **given)


async def test_failures(browser: Browser, running: Running) -> None:
    """
    Calls that fail while their service starts are called that; later ones show their code.
    """
    running.context.seen.append(auth(began=120, up=118))
    batch = Batch()
    for ago in (119, 118.5):
        fail(batch, WATCH, ago)
    fail(batch, LOG_IN, 60)
    fail(batch, LOG_IN, 150)
    await running.take("traces", batch.request)
    page, complaints = await opened(browser, running)
    rows = page.get_by_role("row")

    row = rows.filter(has_text="auth.WatchRevocations")
    await expect(row).to_contain_text("2 times")
    await expect(row).to_contain_text("while auth was starting")
    await expect(row).not_to_contain_text("UNAVAILABLE")
    row = rows.filter(has_text="auth.LogIn")
    await expect(row).to_contain_text("2 times")
    await expect(row).to_contain_text("UNAVAILABLE")

    await page.get_by_role("link", name="Traces").click()
    row = rows.filter(has_text="auth.WatchRevocations").first
    await expect(row).to_contain_text("while auth was starting")
    await expect(rows.filter(has_text="auth.LogIn").first).to_contain_text("UNAVAILABLE")
    assert [] == complaints


async def test_one_cause(browser: Browser, running: Running) -> None:
    """
    Requests that fail because of one method are one row; a page is named once its name is known.
    """
    batch = Batch()
    verb: dict[str, Any] = {
        "http__request__method": "GET",
        "http__response__status_code": 503,
        "error": True,
    }
    edge: dict[str, Any] = {"component": "proxy", "kind": SERVER} | verb
    for name in ("GET other", "GET /", "GET /api/v1/surveys/list"):
        trace = os.urandom(16)
        root = batch.span("gateway-envoy", name, trace=trace, **edge)
        given: dict[str, Any] = {"kind": CLIENT, "component": "proxy", "error": True}
        batch.rpc("gateway-envoy", LIST, "UNAVAILABLE", trace=trace, parent=root.span_id, **given)
    for name in ("GET other", "GET /api/v1/me"):
        batch.span("gateway-envoy", name, **edge)
    await running.take("traces", batch.request)
    page, complaints = await opened(browser, running)

    rows = page.get_by_role("row")
    await expect(rows).to_have_count(2)
    row = rows.filter(has_text="survey.ListRequests")
    await expect(row).to_contain_text("in GET /")
    await expect(row).to_contain_text("GET /api/v1/surveys/list")
    await expect(row).to_contain_text("3 times")
    await expect(row).not_to_contain_text("outside the API")
    row = rows.filter(has_text="gateway")
    await expect(row).to_contain_text("in GET /api/v1/me 2 times")
    assert [] == complaints


def test_not_starting() -> None:
    """
    A service does not start while another process of it serves, nor when only the console starts.
    """
    seen = [auth(began=3000, up=2)]
    assert mesh_status.start_of("auth", seen) is None
    seen = [auth(began=20, up=18), auth(began=5000, up=4998, process="auth-2")]
    phase = mesh_status.start_of("auth", seen)
    assert phase is not None
    assert now() // 1000 - phase[0] > 4000 * SECOND


async def test_graph(browser: Browser, running: Running) -> None:
    """
    Failed attempts to open a stream do not make an edge of the graph fail; failed calls do.
    """
    batch = Batch()
    for _ in range(5):
        for method in (WATCH, LOG_IN):
            trace = batch.span("gateway", method, kind=CLIENT)
            batch.rpc(
                "auth",
                method,
                "UNAVAILABLE",
                trace=trace.trace_id,
                parent=trace.span_id,
                error=True,
            )
        trace = batch.span("survey", WATCH, kind=CLIENT)
        batch.rpc(
            "auth", WATCH, "UNAVAILABLE", trace=trace.trace_id, parent=trace.span_id, error=True
        )
    await running.take("traces", batch.request)
    page, _ = await opened(browser, running)
    await page.get_by_role("link", name="Graph").click()

    await expect(page.get_by_role("button", name="gateway calls auth: ")).to_have_accessible_name(
        re.compile("gateway calls auth: [^,]+, 5 of 10 failed")
    )
    await expect(page.get_by_role("button", name="survey calls auth: ")).to_have_accessible_name(
        re.compile("survey calls auth: [^,]+$")
    )


async def test_proxy_down(browser: Browser, running: Running) -> None:
    """
    The card of a service whose process is up but whose proxy is not says both.
    """
    at = now() // 1000
    for process, kind, fault in (
        ("auth", "process", ""),
        ("auth-envoy", "envoy", "does not respond in time"),
        ("survey-envoy", "envoy", ""),
    ):
        target = Target(process=process, url="http://127.0.0.1:1" + "/metrics" * (kind != "envoy"))
        running.context.seen.append(Seen(target, at=at, up_since=1, fault=fault))
    page, _ = await opened(browser, running)

    card = page.get_by_role("region", name="auth", exact=True)
    await expect(card.get_by_text("proxy down", exact=True)).to_be_visible()
    await expect(card.get_by_text("up", exact=True)).to_be_visible()
    survey = page.get_by_role("region", name="survey", exact=True)
    await expect(survey.get_by_text("proxy down")).to_have_count(0)


async def test_links(browser: Browser, running: Running) -> None:
    """
    From the row, two clicks lead to the denied calls, which are not failed ones.
    """
    batch = Batch()
    intruder = "spiffe://amarre.local/ns/amarre/sa/health"
    for _ in range(30):
        facts = {"amarre__caller_id": intruder, "component": "proxy"}
        batch.rpc("survey-envoy", LIST, "PERMISSION_DENIED", **facts)
    await running.take("traces", batch.request)
    page, complaints = await opened(browser, running)
    await page.locator("[data-incident]").get_by_role("link", name="survey", exact=True).click()
    await expect(page.get_by_role("link", name="Security log")).to_be_visible()
    await page.get_by_role("link", name="Traces of survey.ListRequests").click()

    await expect(page.locator("td").get_by_text("PERMISSION_DENIED").first).to_be_visible()
    assert [] == complaints
