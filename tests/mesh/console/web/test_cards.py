"""The cards of the services on the overview."""

from playwright.async_api import Browser, expect

from mesh.console.intake.scraper import Seen
from mesh.console.settings import Target
from tests.mesh.console.conftest import Running
from tests.mesh.console.telemetry import now
from tests.mesh.console.web.conftest import BROWSER, opened

pytestmark = BROWSER


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
