"""A long trace: filter, paging, ranks of spans, exemplars."""

import time

from playwright.async_api import Browser, expect

from mesh.console.intake.prometheus_text import Exemplar
from mesh.console.store.tables import Tables
from tests.mesh.console.conftest import Running
from tests.mesh.console.telemetry import CLIENT, LIST, Batch
from tests.mesh.console.web.conftest import BROWSER, opened

pytestmark = BROWSER

SPANS = 3000


async def long_trace(running: Running) -> str:
    """Store a trace with `SPANS` statements, one of which fails; return its id."""
    batch = Batch()
    root = batch.rpc("survey", LIST, ms=900)
    for at in range(SPANS):
        batch.span(
            "survey",
            f"SELECT {at % 7}",
            kind=CLIENT,
            trace=root.trace_id,
            parent=root.span_id,
            start=root.start_time_unix_nano,
            ms=1 + at % 100,
            db__name="broken" if at == SPANS - 1 else "whole",
        )
    await running.take("traces", batch.request)
    return str(root.trace_id.hex())


async def test_filter(browser: Browser, running: Running) -> None:
    """
    A long trace is shown in parts; a filter by name, code or attribute finds its spans at once,
    with those above them, and is part of the address.
    """
    trace = await long_trace(running)
    page, complaints = await opened(browser, running)
    await page.goto(f"{running.url}/traces/{trace}")
    spans = page.locator(".span")
    await expect(spans).to_have_count(500)
    await page.get_by_role("button", name="Show 500 more of 2,501").click()
    await expect(spans).to_have_count(1000)

    began = time.monotonic()
    await page.get_by_label("Filter spans").fill("db.name=broken")
    await expect(spans).to_have_count(2)
    assert time.monotonic() - began < 2
    await expect(page.get_by_text("1 of 3,001 spans")).to_be_visible()
    await page.reload()
    await expect(spans).to_have_count(2)
    assert [] == complaints


async def test_rank(browser: Browser, running: Running) -> None:
    """
    An opened span shows its rank among those of its service and name.
    """
    trace = await long_trace(running)
    page, _ = await opened(browser, running)
    await page.goto(f"{running.url}/traces/{trace}?filter=broken")
    await page.locator(".span").last.click()

    await expect(page.locator(".detail")).to_contain_text(
        "slower than 99 % of 429 of its kind within the last 20,000 spans of its service (p50 51"
    )


async def test_exemplars(browser: Browser, running: Running) -> None:
    """
    A trace that is an exemplar of a method links to its metrics.
    """
    batch = Batch()
    root = batch.rpc("survey", LIST, ms=900)
    await running.take("traces", batch.request)
    key, at = ("survey", "ListRequests", "OK", ""), root.start_time_unix_nano // 1000
    found = [Exemplar(key, "1", bytes(root.trace_id), 0.9, at)]

    def add(tables: Tables, _: object) -> None:
        tables.add_exemplars(found)

    running.context.writer.do(add)
    running.context.writer.flush()
    page, _ = await opened(browser, running)
    await page.goto(f"{running.url}/traces/{root.trace_id.hex()}")
    await page.locator("main").get_by_role("link", name="survey.ListRequests").click()

    await expect(page).to_have_url(f"{running.url}/metrics?method=survey.ListRequests")
