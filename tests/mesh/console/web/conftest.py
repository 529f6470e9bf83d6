"""A real Chromium for the tests of the pages."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.mesh.console.conftest import Running

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
]
"""The marks of tests that need it."""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A real Chromium."""
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        await launched.close()


async def opened(browser: Browser, running: Running, **options: Any) -> tuple[Page, list[str]]:
    """Sign a browser in; return its page and the complaints that come up in it."""
    page = await browser.new_page(**options)
    complaints = list[str]()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: complaints.append(message.text) if message.type == "error" else None,
    )
    code = (await running.client.post(f"{running.url}/api/codes")).json()
    await page.goto(f"{running.url}{code['path']}")
    await page.wait_for_url(f"{running.url}/")
    return page, complaints
