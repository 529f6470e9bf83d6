"""Nobody is kept out: every page by axe, in light and dark, on a phone, and by keyboard alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.integration.researcher import Researcher

AXE = Path(__file__).parents[1] / "node/node_modules/axe-core/axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LOOKS = [("light", 1280), ("dark", 360)]
RUNBOOK = "/runbooks/backup-old.md"
WIDER = "document.documentElement.scrollWidth > window.innerWidth"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not AXE.is_file(),
        reason="needs `npm ci` in tests/node, which `make test` runs where there is npm",
    ),
]
direct = pytest.mark.parametrize("live", ["direct"], indirect=True)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(locale="en-GB", reduced_motion="reduce")
    context.set_default_timeout(30_000)
    yield context
    context.close()


def faults(page: Page) -> list[str]:
    """Return what axe finds wrong with *page*, in every look of it."""
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
    return found


def enter_console(live: Any, page: Page) -> str:
    """Come into the console by a one-time link; returns where it is."""
    url: str = live["urls"]["console"]
    headers = {"authorization": f"Bearer {live['console']['token']}"}
    code = httpx.post(f"{url}/api/codes", headers=headers, trust_env=False)
    page.goto(url + code.json()["path"])
    page.wait_for_url(f"{url}/")
    return url


@direct
def test_console(live: Any, context: BrowserContext) -> None:
    """
    axe finds nothing on any page of the console.
    """
    with Researcher(live, "noor@example.org") as somebody:
        somebody.sign_in()
        somebody.create()
    page = context.new_page()
    url = enter_console(live, page)
    page.goto(f"{url}/traces")
    trace = page.locator("a[data-row]").first.get_attribute("href")
    found = []
    for path in ("/", "/graph", "/traces", trace, "/logs", "/metrics", "/mesh", RUNBOOK):
        page.goto(f"{url}{path}")
        page.locator("main h1").wait_for()
        page.wait_for_load_state("networkidle")
        found += faults(page)

    assert [] == found


@direct
def test_researchers_pages(live: Any, context: BrowserContext) -> None:
    """
    axe finds nothing on any page of the application, signed out and signed in.
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
    """Return where *links* of *page* lead, each once."""
    every = page.locator(links).all()
    return sorted({str(link.get_attribute("href")) for link in every})


@direct
def test_keyboard(live: Any, context: BrowserContext) -> None:
    """
    Without a mouse: to the traces by keys, into one, to its spans, and what has the focus shows.
    """
    with Researcher(live, "noor@example.org") as somebody:
        somebody.sign_in()
    page = context.new_page()
    url = enter_console(live, page)

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("g")
    page.keyboard.press("t")
    page.wait_for_url(f"{url}/traces")
    rows = page.locator("a[data-row]")
    rows.first.wait_for()
    page.keyboard.press("j")
    expect(rows.first).to_be_focused()
    assert "none" != rows.first.evaluate("e => getComputedStyle(e).outlineStyle")
    page.keyboard.press("Enter")
    spans = page.get_by_role("treeitem")
    spans.first.wait_for()
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    expect(spans.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(spans.nth(1)).to_have_attribute("aria-expanded", "true")
    shown = page.url

    page.reload()  # The address leads to the span that was opened.
    expect(page.locator(".span[aria-expanded=true]")).to_have_count(1)
    assert "span=" in shown
    assert [] == unreachable(page)


def unreachable(page: Page) -> list[str]:
    """Return what can be clicked on *page* and Tab does not come to."""
    clickable = "a[href], button, input, select, textarea, summary"
    left = {
        one.evaluate("e => e.outerHTML")
        for one in page.locator(clickable).all()
        if one.is_visible()
    }
    page.evaluate("document.activeElement.blur()")
    for _ in range(len(left) + 5):
        page.keyboard.press("Tab")
        left.discard(page.evaluate("document.activeElement.outerHTML"))
    return sorted(left)


def test_faults_are_found(context: BrowserContext) -> None:
    """
    What keeps people out is seen: a picture without words, pale text, something beyond Tab.
    """
    page = context.new_page()
    page.set_content(
        "<html lang=en><title>t</title><main><h1>Page</h1><img src='data:,'>"
        "<p style='color:#bbb'>pale</p><button tabindex=-1>never</button></main>"
    )
    found = "\n".join(faults(page))

    assert "image-alt" in found
    assert "color-contrast" in found
    assert ['<button tabindex="-1">never</button>'] == unreachable(page)
