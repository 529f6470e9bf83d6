"""Survey pages in a real browser: branching, drawing, and without scripts."""

import shutil
from collections.abc import AsyncIterator

import httpx
import pytest
from playwright.async_api import Browser, FilePayload, Page, async_playwright, expect

from tests.sandbox.redcap.conftest import TOKEN, Server
from tests.sandbox.redcap.test_surveys import INVITATION

pytestmark = pytest.mark.browser

CHOSEN = (
    "demandeur_statut",
    "demandeur_composante",
    "invite_etablissement",
    "enseignement_composante",
)
TYPED = [name for name in INVITATION if name not in CHOSEN]
CV = FilePayload(name="cv.pdf", mimeType="application/pdf", buffer=b"%PDF-1.7")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        await started.close()


def link(server: Server, record: str, instrument: str) -> str:
    """The survey link of a new record."""
    form = {"token": TOKEN, "format": "json", "content": "record"}
    httpx.post(server.api_url, data={**form, "data": f'[{{"record_id": "{record}"}}]'})
    form |= {"content": "surveyLink", "record": record, "instrument": instrument}
    return httpx.post(server.api_url, data=form).text


def question(name: str) -> str:
    """The selector of a question."""
    return f'[data-field="{name}"]'


async def fill(page: Page) -> None:
    """Complete the form as a teacher who invites a guest."""
    for name in CHOSEN:
        await page.select_option(f"#{name}", INVITATION[name])
    for name in TYPED:
        await page.fill(f"#{name}", INVITATION[name])
    await page.set_input_files("#cv_invite", CV)


class TestWithScript:
    async def test_branching(self, browser: Browser, server: Server) -> None:
        """
        Questions appear and disappear with the answers, in chains too, before anything is sent.
        """
        page = await browser.new_page()
        faults: list[str] = []
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        await page.goto(link(server, "b1", "form"))
        await expect(page.locator(question("mobilite_type"))).to_be_hidden()
        await page.select_option("#demandeur_statut", "1")
        await page.select_option("#mobilite_type", "1")
        await page.select_option("#invitation_type", "1")
        await page.check('[name="laboratoire_historique_invitations"][value="1"]')
        await expect(page.locator(question("laboratoire_invitations_details"))).to_be_visible()
        await page.select_option("#demandeur_statut", "2")
        for name in ("mobilite_type", "invitation_type", "laboratoire_invitations_details"):
            await expect(page.locator(question(name))).to_be_hidden()
        await expect(page.locator(question("demandeur_composante"))).to_be_visible()
        assert [] == faults

    async def test_submission(self, browser: Browser, server: Server) -> None:
        """
        A complete form is accepted; an incomplete one returns with the missing answer focused.
        """
        page = await browser.new_page()
        await page.goto(link(server, "b2", "form"))
        await fill(page)
        await page.fill("#invite_nom", "")
        await page.click('button[value="submit"]')
        await expect(page.locator("#faults")).to_be_visible()
        await expect(page.locator("#invite_nom")).to_be_focused()
        await page.fill("#invite_nom", "Charles Babbage")
        await page.set_input_files("#cv_invite", CV)
        await page.click('button[value="submit"]')
        await expect(page.locator("main")).to_have_attribute("data-state", "completed")

    async def test_drawn_signature(self, browser: Browser, server: Server) -> None:
        """A signature drawn with the pointer is stored as an image."""
        page = await browser.new_page()
        await page.goto(link(server, "b3", "demandeur_composante"))
        await page.fill("#avis_composante_directeur_nom", "Grace Hopper")
        await page.select_option("#avis_composante_position", "1")
        await page.fill("#avis_composante_motivation", "Oui.")
        await page.locator("canvas").scroll_into_view_if_needed()
        box = await page.locator("canvas").bounding_box()
        assert box is not None
        await page.mouse.move(box["x"] + 20, box["y"] + 20)
        await page.mouse.down()
        await page.mouse.move(box["x"] + 90, box["y"] + 60)
        await page.mouse.up()
        await page.click('button[value="submit"]')
        await expect(page.locator("main")).to_have_attribute("data-state", "completed")


class TestWithoutScript:
    async def test_whole_form(self, browser: Browser, server: Server) -> None:
        """Without JavaScript the form can be completed by updating it between answers."""
        context = await browser.new_context(java_script_enabled=False)
        page = await context.new_page()
        await page.goto(link(server, "b4", "form"))
        await page.select_option("#demandeur_statut", "2")
        await page.click('button[value="refresh"]')
        await page.select_option("#invite_etablissement", "4")
        await page.click('button[value="refresh"]')
        await fill(page)
        await page.click('button[value="submit"]')
        assert "completed" == await page.locator("main").get_attribute("data-state")
