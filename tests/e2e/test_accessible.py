"""Accessibility: every page checked by axe, in light and dark mode and on a phone."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.e2e.conftest import NODE, WIDER, enter_console, needs
from tests.e2e.faults import wrong_clock
from tests.integration.researcher import Researcher

AXE = NODE / "axe-core/axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LOOKS = [("light", 1280), ("dark", 360)]
ORDER = """fetch("/api/orders", {
  method: "POST",
  headers: {"content-type": "application/json"},
  body: JSON.stringify({order: "restart", service: "nobody"}),
}).then(answer => answer.text())"""
WIDE_TABLES = """[...document.querySelectorAll("main table")]
  .filter(one => one.scrollWidth > one.parentElement.clientWidth + 1)
  .map(one => `wider than a phone: ${one.innerText.slice(0, 80)}`)"""
RUNBOOK = "/runbooks/backup-old.md"

pytestmark = [pytest.mark.browser, needs(AXE)]
direct = pytest.mark.parametrize("live", ["direct"], indirect=True)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(locale="en-GB", reduced_motion="reduce")
    context.set_default_timeout(30_000)
    yield context
    context.close()


def faults(page: Page) -> list[str]:
    """Return the findings of axe on *page*, in every mode."""
    found = []
    for scheme, width in LOOKS:
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(AXE.read_text())
        answer = page.evaluate(
            "rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", RULES
        )
        found += [
            f"{page.url} {scheme} {width}: {fault['id']}: {fault['help']}: {node['html']}"
            for fault in answer["violations"]
            for node in fault["nodes"]
        ]
        if page.evaluate(WIDER):
            found.append(f"{page.url} {scheme} {width}: wider than the screen")
        if width < 640:
            found += [f"{page.url}: {one}" for one in page.evaluate(WIDE_TABLES)]
    return found


@direct
def test_console(live: Any, context: BrowserContext) -> None:
    """
    axe has no findings on any page of the console, with an audit log long enough to scroll.
    """
    with Researcher(live, "noor@example.org") as somebody:
        somebody.sign_in()
        somebody.create()
    page = context.new_page()
    url = enter_console(live, page)
    with wrong_clock(live, "axe"):
        row = page.locator("[data-incident]").filter(has_text="ClockWrong").first
        incident = row.get_by_role("link").first.get_attribute("href")
    page.goto(f"{url}/traces")
    for _ in range(20):
        page.evaluate(ORDER)
    traces = [row.get_attribute("href") or "" for row in page.locator("a[data-row]").all()[:2]]
    ids = [path.rpartition("/")[2] for path in traces]
    found = []
    pages = (
        "/",
        incident,
        "/graph",
        "/traces",
        traces[0],
        f"/compare?a={ids[0]}&b={ids[1]}",
        "/logs",
        "/metrics",
        "/metrics?method=survey.ListRequests&series=amarre_db_duration_seconds",
        "/processes",
        "/call",
        "/mesh",
        RUNBOOK,
    )
    for path in pages:
        page.goto(f"{url}{path}")
        page.locator("main h1").wait_for()
        page.wait_for_load_state("networkidle")
        for row in page.locator(".span").all()[:2]:
            row.click()  # Its details.
        found += faults(page)

    assert [] == found


@direct
def test_researchers_pages(live: Any, context: BrowserContext) -> None:
    """
    axe has no findings on any page of the application, signed out and signed in.
    """
    page = context.new_page()
    found = []

    def look(path: str) -> None:
        page.goto(live["urls"]["app"] + path)
        page.wait_for_load_state("networkidle")
        found.extend(faults(page))

    with Researcher(live, "mary@example.org") as mary:
        mary.sign_in()
        mary.create()
        for path in ("/", "/signup", "/notice", "/nowhere", "/api/docs"):
            look(path)
        mary.ask_for_link()
        look(mary.mailed_link().removeprefix(mary.app))
    page.get_by_role("button", name="Sign me in").click()
    page.get_by_role("navigation", name="My requests").wait_for()
    tabs = hrefs(page, "nav a")
    for path in (*tabs, "/confirm?next=/"):
        look(path)

    assert "/?tab=account" in tabs
    assert [] == found


def hrefs(page: Page, links: str) -> list[str]:
    """Return the unique targets of *links* on *page*."""
    every = page.locator(links).all()
    return sorted({str(link.get_attribute("href")) for link in every})


def test_faults_are_found(context: BrowserContext) -> None:
    """
    Accessibility errors are detected: an image without text, low contrast.
    """
    page = context.new_page()
    page.set_content(
        "<html lang=en><title>t</title><main><h1>Page</h1><img src='data:,'>"
        "<p style='color:#bbb'>pale</p></main>"
    )
    found = "\n".join(faults(page))

    assert "image-alt" in found
    assert "color-contrast" in found
