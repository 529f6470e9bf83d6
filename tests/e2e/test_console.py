"""An engineer on call controls a running mesh from the console, in a real browser."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.conftest import WIDER, enter_console

pytestmark = pytest.mark.browser


@pytest.fixture
def page(browser: Browser, live: Any) -> Iterator[Page]:
    """A page signed in to the console with a one-time link."""
    context = browser.new_context(locale="en-GB", viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(30_000)
    expect.set_options(timeout=30_000)
    enter_console(live, page)
    yield page
    expect.set_options(timeout=5_000)
    context.close()


@contextlib.contextmanager
def callers(app: str) -> Iterator[list[int]]:
    """Poll the status of the mesh; yields the HTTP statuses."""
    statuses, stop = list[int](), threading.Event()

    def call() -> None:
        with httpx.Client(base_url=app, trust_env=False, timeout=30) as client:
            while not stop.wait(0.01):
                statuses.append(client.get("/api/v1/health/status").status_code)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("live", ["sidecar"], indirect=True)  # Canaries need proxies.
def test_canary(live: Any, page: Page, screenshots: Path) -> None:
    """
    Start a canary, watch its share and verdict, promote it: no call fails, and the operator is
    recorded.
    """

    def shot(name: str) -> None:
        for scheme, width in (("light", 1280), ("dark", 1280), ("light", 360)):
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            page.set_viewport_size({"width": width, "height": 900})
            page.screenshot(path=screenshots / f"{name}-{scheme}-{width}.png", full_page=True)
            assert not page.evaluate(WIDER), f"{name} is wider than {width} px"
        page.set_viewport_size({"width": 1280, "height": 900})

    url = live["urls"]["console"]
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(f"{url}/mesh")
    before = page.evaluate(
        "fetch('/api/mesh').then(answer => answer.json()).then(found =>"
        " found.processes.find(one => one.process === 'health').startedAt)"
    )
    with callers(live["urls"]["app"]) as statuses:
        form = page.get_by_role("form", name="Start a canary")
        form.get_by_label("Service").select_option("health")
        form.get_by_label("Weight, %").fill("50")
        form.get_by_label("manual promotion").check()
        form.get_by_role("button").click()
        row = page.locator(".row").filter(has_text="canary of health")
        expect(row).to_contain_text("running, 50 %, manual promotion")
        expect(row.get_by_text("healthy", exact=True)).to_be_visible()
        shot("console-canary")

        page.goto(url)
        card = page.get_by_role("region", name="health", exact=True)
        expect(card).to_contain_text("canary 50 %")
        expect(card.get_by_text("healthy", exact=True)).to_be_visible()
        shot("console-overview")

        page.goto(f"{url}/mesh")
        row.get_by_role("button", name="25 %").click()
        expect(row).to_contain_text("running, 25 %")
        row.get_by_role("button", name="Promote").click()
        expect(page.get_by_text("Done: canary promote health")).to_be_visible()
        expect(row).to_have_count(0)

    expect(page.get_by_role("row").filter(has_text="canary promote health")).to_contain_text("done")
    shot("console-promoted")
    # The console reads what a process says of itself every 5 s.
    page.wait_for_function(
        "before => fetch('/api/mesh').then(answer => answer.json()).then(found =>"
        " found.processes.some(one => one.process === 'health' && one.startedAt > before))",
        arg=before,
    )
    assert len(statuses) > 100
    assert {200} == set(statuses)
