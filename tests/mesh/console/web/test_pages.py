"""The pages in a real browser: keyboard, phone, dark mode, no script injection."""

from datetime import timedelta

import pytest
from playwright.async_api import Browser, expect
from prometheus_client.openmetrics import exposition as openmetrics

from mesh.chassis.testing import free_port
from tests.mesh.console.conftest import Running, Start
from tests.mesh.console.queries.test_objectives import Process, method
from tests.mesh.console.telemetry import Batch, logs
from tests.mesh.console.web.conftest import BROWSER, FakeRunner, opened

PAGES = ("/", "/graph", "/traces", "/logs", "/metrics", "/processes", "/call", "/mesh")
EVIL = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"

pytestmark = BROWSER


@pytest.fixture
async def trace(running: Running) -> str:
    """The id of a trace with a log, both with malicious names and attributes."""
    batch = Batch()
    trace = batch.call(proxies=True)
    batch.span(EVIL, EVIL, trace=trace, evil=EVIL)
    await running.take("traces", batch.request)
    await running.take("logs", logs("survey", EVIL, trace=trace, evil=EVIL))
    return trace.hex()


class TestPages:
    async def test_every_page(self, browser: Browser, running: Running, trace: str) -> None:
        """
        Every page loads without errors, in dark mode and on a phone, and without overflow.
        """
        page, complaints = await opened(
            browser, running, viewport={"width": 390, "height": 844}, color_scheme="dark"
        )
        for path in (*PAGES, f"/traces/{trace}", f"/compare?a={trace}&b={trace}"):
            await page.goto(f"{running.url}{path}")
            await expect(page.locator("h1")).to_be_visible()
            await page.wait_for_load_state("networkidle")
            wider = "document.documentElement.scrollWidth > window.innerWidth"
            assert not await page.evaluate(wider), f"{path} is wider than a phone"

        assert [] == complaints

    async def test_telemetry_is_no_markup(
        self, browser: Browser, running: Running, trace: str
    ) -> None:
        """
        Names, attributes and messages are shown verbatim and never run.
        """
        page, _ = await opened(browser, running)
        await page.goto(f"{running.url}/traces/{trace}")
        await page.locator(".span").last.click()

        await expect(page.locator("main")).to_contain_text("<img src=x")
        assert 0 == await page.locator("main img, main script").count()
        assert "owned" != await page.title()

    async def test_keyboard_alone(self, browser: Browser, running: Running, trace: str) -> None:
        """
        Keyboard shortcuts lead from the overview to a trace and into its spans.
        """
        page, _ = await opened(browser, running)
        await page.keyboard.press("g")
        await page.keyboard.press("t")
        link = page.locator("a[data-row]").first
        await expect(link).to_be_visible()
        await page.keyboard.press("j")
        await expect(link).to_be_focused()
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{running.url}/traces/{trace}")
        spans = page.locator(".span")
        await expect(spans.first).to_be_visible()
        before = await spans.count()
        await page.keyboard.press("j")
        await page.keyboard.press("ArrowDown")
        await expect(spans.nth(1)).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator(".detail")).to_be_visible()
        await page.keyboard.press("ArrowUp")
        await page.keyboard.press("ArrowLeft")

        await expect(spans).not_to_have_count(before)

    async def test_keys_switched_off(self, browser: Browser, running: Running) -> None:
        """
        Single-key shortcuts can be turned off permanently in the dialog that explains them.
        """
        page, _ = await opened(browser, running)
        await page.keyboard.press("?")
        await page.get_by_label("Enable shortcuts").uncheck()
        await page.get_by_role("button", name="Close").click()
        await page.reload()
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await page.get_by_role("button", name="Shortcuts").click()
        await page.get_by_label("Enable shortcuts").check()
        await page.get_by_role("button", name="Close").click()
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog")).to_be_visible()

    async def test_runbook(self, browser: Browser, start: Start) -> None:
        """
        An alert links to its runbook, that to the next one, and Back returns.
        """
        unavailable = {"process": "survey", "url": f"http://127.0.0.1:{free_port()}/metrics"}
        often = timedelta(seconds=0.1)
        async with start(console_scrape=(unavailable,), console_scrape_every=often) as running:
            page, complaints = await opened(browser, running)
            alert = page.get_by_role("status").filter(has_text="ServiceDown")
            await alert.get_by_role("link", name="runbook").focus()
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("heading", name="ServiceDown")).to_be_visible()
            await expect(page).to_have_title("ServiceDown · AMARRE console")
            await page.get_by_role("link", name="host-memory-low").click()
            await expect(page.get_by_role("heading", name="HostMemoryLow")).to_be_visible()
            await page.go_back()
            await expect(page.get_by_role("heading", name="ServiceDown")).to_be_visible()
            await page.get_by_role("link", name="Graph").click()
            await expect(page.get_by_role("heading", name="Graph")).to_be_visible()
            await page.go_back()
            await expect(page.get_by_role("heading", name="ServiceDown")).to_be_visible()
            assert [] == complaints

    async def test_graph(self, browser: Browser, running: Running, trace: str) -> None:
        """
        An edge of the graph opens by keyboard and shows its methods.
        """
        page, _ = await opened(browser, running)
        await page.goto(f"{running.url}/graph")
        edge = page.get_by_role("button", name="gateway calls survey")
        await edge.focus()
        await page.keyboard.press("Enter")

        await expect(page.get_by_role("heading", name="gateway→survey")).to_be_visible()

    async def test_live_tail(self, browser: Browser, running: Running) -> None:
        """
        A live tail of ten thousand lines keeps the page small and responsive.
        """
        page, complaints = await opened(browser, running)
        await page.goto(f"{running.url}/logs")
        async with page.expect_response(lambda response: "follow=true" in response.url):
            await page.get_by_role("button", name="Live tail").click()
        for part in range(5):
            await running.take("logs", logs("auth", *[f"line {part} {n}" for n in range(2000)]))
        await expect(page.locator(".logs")).to_contain_text("line 4", timeout=60_000)

        assert await page.locator(".logs details").count() <= 1000
        answered = "new Promise(done => requestAnimationFrame(() => done(performance.now())))"
        before = await page.evaluate("performance.now()")
        assert await page.evaluate(answered) - before < 1000
        assert [] == complaints

    async def test_signed_out(self, browser: Browser, running: Running) -> None:
        """
        After signing out, the browser has no access.
        """
        page, _ = await opened(browser, running)
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("heading", name="Signed out")).to_be_visible()
        await page.goto(f"{running.url}/traces")

        await expect(page.get_by_role("heading", name="Operators only")).to_be_visible()


async def test_control_actions(browser: Browser, controlled: Running, runner: FakeRunner) -> None:
    """
    An operator starts a fault on the Mesh page and finds it in the audit log.
    """
    page, complaints = await opened(browser, controlled)
    await page.goto(f"{controlled.url}/mesh")
    form = page.get_by_role("form", name="Start a fault")
    await form.get_by_label("Method").select_option("survey.ListRequests")
    await form.get_by_label("Abort with").select_option("UNAVAILABLE")
    await form.get_by_role("button").focus()
    await page.keyboard.press("Enter")

    await expect(page.get_by_role("cell", name="operator (console)")).to_be_visible()
    await expect(page.get_by_role("status").filter(has_text="Done: fault add")).to_be_visible()
    fault = {"method": "survey.ListRequests", "percent": 100, "abort": "UNAVAILABLE"}
    assert [("fault add", fault)] == runner.received
    assert [] == complaints


async def test_exemplar(browser: Browser, start: Start) -> None:
    """
    A diamond on the latency chart links to its trace, and so does a failure below it.
    """
    process, batch = Process(openmetrics.generate_latest), Batch()
    slow, failed = batch.call().hex(), batch.call(code="UNAVAILABLE").hex()
    every = timedelta(milliseconds=50)
    async with (
        process.served() as target,
        start(console_scrape=(target,), console_scrape_every=every) as running,
    ):
        await running.take("traces", batch.request)
        process.call(trace=slow, seconds=0.3)
        process.call("UNAVAILABLE", trace=failed)
        await method(running, 2)
        running.context.writer.flush()
        page, complaints = await opened(browser, running)
        chart = f"{running.url}/metrics?method=survey.ListRequests"
        await page.goto(chart)
        await page.locator(f'svg a[href="/traces/{slow}"]').focus()
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{running.url}/traces/{slow}")
        await page.goto(chart)
        await page.locator(f'li a[href="/traces/{failed}"]').click()
        await page.wait_for_url(f"{running.url}/traces/{failed}")

    assert [] == complaints
