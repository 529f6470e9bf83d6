"""Search facets and saved searches of traces; replay of the graph."""

from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.mesh.console.conftest import Running
from tests.mesh.console.telemetry import CREATE, Batch, now
from tests.mesh.console.web.conftest import BROWSER, opened

MINUTE = 60_000_000_000


@pytest.fixture
async def calls(running: Running) -> None:
    """Three calls that list, one of them failed, and a slow one that creates."""
    batch = Batch()
    for code in ("OK", "OK", "UNAVAILABLE"):
        batch.rpc("survey", code=code, error=code != "OK", ms=5)
    batch.rpc("survey", CREATE, ms=2000)
    batch.rpc("auth", "amarre.auth.v1.AuthService/GetProfile", ms=50)
    await running.take("traces", batch.request)


def counts(found: Any, facet: str) -> dict[str, int]:
    return {one["value"]: one["count"] for one in found["facets"][facet]}


@pytest.mark.usefixtures("calls")
class TestFacets:
    async def test_counts(self, running: Running) -> None:
        """
        Facets count only the matching traces.
        """
        found = await running.get("traces/facets", service="survey")

        assert (4, True) == (found["traces"], found["complete"])
        assert {"survey": 4} == counts(found, "service")
        assert {"survey.ListRequests": 3, "survey.CreateRequest": 1} == counts(found, "rpc")
        assert {"ok": 3, "error": 1} == counts(found, "status")
        assert {"OK": 3, "UNAVAILABLE": 1} == counts(found, "code")
        assert [
            {"min_ms": 0, "max_ms": 10, "count": 3},
            {"min_ms": 1000, "max_ms": 0, "count": 1},
        ] == found["facets"]["duration"]

    async def test_methods_within(self, running: Running) -> None:
        """
        Methods count wherever they are called in a trace, not only at its root.
        """
        batch = Batch()
        root = batch.span("gateway", "GET /api/v1/me")
        batch.rpc("survey", CREATE, trace=root.trace_id, parent=root.span_id)
        await running.take("traces", batch.request)
        found = await running.get("traces/facets", service="gateway")

        assert {"survey.CreateRequest": 1} == counts(found, "rpc")

    async def test_nothing_found(self, running: Running) -> None:
        """
        A search without results has no facet values.
        """
        found = await running.get("traces/facets", service="nobody")

        assert 0 == found["traces"]
        assert not any(found["facets"].values())

    async def test_malformed(self, running: Running) -> None:
        """
        Facets accept the parameters of the search and reject what it rejects.
        """
        answer = await running.client.get(f"{running.url}/api/traces/facets?min_ms=fast")

        assert 400 == answer.status_code
        assert "min_ms" in answer.json()["error"]["message"]


@pytest.mark.usefixtures("calls")
class TestPages:
    pytestmark = BROWSER

    async def test_one_click(self, browser: Browser, running: Running) -> None:
        """
        A click on a value narrows the search, a second one widens it; the URL follows.
        """
        page, complaints = await opened(browser, running)
        await page.goto(f"{running.url}/traces")
        failed = page.get_by_role("group", name="Filter by outcome").get_by_role("button")
        rows = page.locator("a[data-row]")
        await expect(rows).to_have_count(5)
        await failed.filter(has_text="failed").click()

        await expect(rows).to_have_count(1)
        await expect(failed.filter(has_text="failed")).to_have_attribute("aria-pressed", "true")
        assert "status=error" in page.url
        await failed.filter(has_text="failed").click()
        await expect(rows).to_have_count(5)
        slow = page.get_by_role("group", name="Filter by duration").get_by_role("button")
        await slow.filter(has_text="over 1000 ms").click()
        await expect(rows).to_have_count(1)
        assert [] == complaints

    async def test_saved_search(self, browser: Browser, running: Running) -> None:
        """
        A saved search is one click away, also after leaving the page, until it is deleted.
        """
        page, complaints = await opened(browser, running)
        page.on("dialog", lambda dialog: dialog.accept("failed calls"))
        await page.goto(f"{running.url}/traces?status=error")
        await page.get_by_role("button", name="Save this search").click()
        await page.goto(f"{running.url}/traces")
        await expect(page.locator("a[data-row]")).to_have_count(5)
        await page.get_by_role("link", name="failed calls").click()

        await expect(page.locator("a[data-row]")).to_have_count(1)
        await page.get_by_role("button", name="Delete the search failed calls").click()
        await expect(page.get_by_role("link", name="failed calls")).to_have_count(0)
        assert [] == complaints

    async def test_a_thousand_services(self, browser: Browser, running: Running) -> None:
        """
        With many services the picture has the failing and the declared calls, lists have a page,
        and a workload can be chosen; its address shows it again.
        """
        batch = Batch()
        for number in range(1000):
            parent = batch.span(f"caller{number}", "client", kind=3)
            method = f"team.v1.Team{number}/Call"
            batch.rpc(f"team{number}", method, trace=parent.trace_id, parent=parent.span_id)
        await running.take("traces", batch.request)
        page, complaints = await opened(browser, running)
        await page.goto(f"{running.url}/graph")
        picture = page.get_by_role("group", name="Calls between workloads")
        rows = page.locator("table tbody tr")
        await expect(page.get_by_text("The graph shows 24 of 20")).to_be_visible()
        assert 24 >= await picture.locator(".node").count()
        await expect(picture.get_by_role("button", name="gateway calls survey")).to_be_visible()
        await expect(rows).to_have_count(100)
        await page.get_by_role("combobox", name="Workload").fill("team777")
        await page.keyboard.press("Enter")

        edge = picture.get_by_role("button", name="caller777 calls team777")
        await expect(edge).to_be_visible()
        await expect(picture.get_by_role("button")).to_have_count(1)
        await page.goto(page.url)
        await expect(edge).to_be_visible()
        await page.goto(f"{running.url}/mesh")
        await page.get_by_role("button", name="Show all 20").click()
        stored = page.get_by_role("region", name="Stored").locator("tbody tr")
        assert 2000 <= await stored.count()
        assert [] == complaints

    async def test_replay(self, browser: Browser, running: Running) -> None:
        """
        The slider shows the graph of one step of the time range, and the URL restores it.
        """
        batch = Batch()
        start = now() - 10 * MINUTE
        parent = batch.span("stranger", "client", kind=3, start=start)
        batch.rpc("survey", trace=parent.trace_id, parent=parent.span_id, start=start)
        await running.take("traces", batch.request)
        page, complaints = await opened(browser, running)
        await page.goto(f"{running.url}/graph?from=-15m")
        edge = page.get_by_role("button", name="stranger calls survey")
        slider = page.get_by_role("slider", name="Replay")
        await expect(edge).to_be_visible()
        await slider.fill("15")

        await expect(edge).to_have_count(0)
        at = datetime.fromtimestamp(start / 1e9, UTC).isoformat().replace("+00:00", "Z")
        await page.goto(f"{running.url}/graph?from=-15m&at={at}")
        await expect(edge).to_be_visible()
        await page.get_by_role("button", name="Play").click()
        await expect(slider).to_have_attribute("aria-valuetext", "whole time range", timeout=15_000)
        assert [] == complaints
