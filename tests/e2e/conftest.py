"""A real Chromium, and the folder of its screenshots."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NODE = Path(__file__).parents[1] / "node/node_modules"
WIDER = "document.documentElement.scrollWidth > window.innerWidth"
"""Whether a page is wider than its window, in JavaScript."""

ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """
    Debian's Chromium, headless.

    Closed with its module: Playwright keeps an event loop running in this thread, in which no
    asynchronous test can run meanwhile.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the screenshots: that of the CI artifacts, if any."""
    kept = os.environ.get("AMARRE_TEST_ARTIFACTS")
    folder = Path(kept) / "screenshots" if kept else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def needs(script: Path) -> pytest.MarkDecorator:
    """Return the mark of tests that need *script* of an npm package."""
    return pytest.mark.skipif(
        not script.is_file(),
        reason="needs `npm ci` in tests/node, which `make test` runs where there is npm",
    )


def enter_console(live: Any, page: Page) -> str:
    """Open the console of a mesh with a one-time link; return its URL."""
    url: str = live["urls"]["console"]
    headers = {"authorization": f"Bearer {live['console']['token']}"}
    code = httpx.post(f"{url}/api/codes", headers=headers, trust_env=False)
    page.goto(url + code.json()["path"])
    page.wait_for_url(f"{url}/")
    return url
