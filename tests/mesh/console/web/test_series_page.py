"""The page Metrics: pushed and scraped metrics other than those of methods."""

from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.mesh.console.conftest import Running
from tests.mesh.console.queries.test_time_series import DELTA, at, request
from tests.mesh.console.web.conftest import BROWSER, opened

pytestmark = BROWSER


@pytest.mark.parametrize("count", [5, 50])
async def test_histogram(browser: Browser, running: Running, count: int) -> None:
    """
    A pushed histogram is drawn in its unit; of few values, the page says that they are few.
    """
    message, data = request("exponential_histogram", DELTA)
    point = data.data_points.add(time_unix_nano=at(1), start_time_unix_nano=at(2), count=count)
    point.positive.bucket_counts[:] = [count]
    await running.take("metrics", message)
    page, complaints = await opened(browser, running)
    await page.goto(f"{running.url}/metrics")
    await page.locator("select[name=series]").select_option("lab.duration")

    await expect(page.get_by_role("img", name="Percentiles")).to_be_visible()
    row = page.get_by_role("row").filter(has_text="exponential_histogram, delta")
    # Half of the way from 1 s to 2 s, geometrically.
    await expect(row).to_contain_text("1.41 s")
    notice = page.get_by_text(f"Only {count} values in this time range")
    await expect(notice).to_have_count(1 if count == 5 else 0)
    assert "series=lab.duration" in page.url
    assert [] == complaints


async def test_not_drawn(browser: Browser, running: Running) -> None:
    """
    A metric that cannot be drawn says why.
    """
    message, data = request("summary")
    data.data_points.add(time_unix_nano=at(1), count=30)
    await running.take("metrics", message)
    page, _ = await opened(browser, running)
    await page.goto(f"{running.url}/metrics?series=lab.duration")

    why: Any = page.get_by_text("Not drawn: a summary has the percentiles of its sender")
    await expect(why).to_be_visible()
