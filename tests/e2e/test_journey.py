"""A researcher's whole journey in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integration.researcher import A_PDF, INVITES_FOR_RESEARCH, Researcher

pytestmark = pytest.mark.browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(locale="en-GB", accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(15_000)
    yield page
    context.close()


def fill(survey: Page, answers: dict[str, str]) -> None:
    """
    Fill in a survey page like a user: only visible fields, choices before the fields they reveal.
    """
    for name, value in answers.items():
        field = survey.locator(f"[name={name}]").first
        if not field.is_visible():
            continue
        kind = field.evaluate("e => e.tagName + ':' + (e.type || '')")
        if kind.startswith("SELECT"):
            field.select_option(value)
        elif kind == "INPUT:radio":
            survey.locator(f"[name={name}][value='{value}']").check()
        elif kind == "INPUT:date":
            field.fill("-".join(reversed(value.split("-"))))
        else:
            field.fill(value)
    for upload in survey.locator("input[type=file]").all():
        if upload.is_visible():
            upload.set_input_files(
                {"name": "cv.pdf", "mimeType": "application/pdf", "buffer": A_PDF}
            )


def submit(survey: Page) -> None:
    survey.get_by_role("button", name="Envoyer").click()
    expect(survey.locator("main")).to_have_attribute("data-state", "completed")


def test_whole_way(live: Any, page: Page, screenshots: Path) -> None:
    """
    Sign up, mailed link, create, fill, opinions, final validation, data, PDF, sign out.
    """
    taken = iter(range(1, 100))

    def shot(name: str, of: Page = page) -> None:
        of.screenshot(path=screenshots / f"{next(taken):02d}-{name}.png", full_page=True)

    app = live["urls"]["app"]
    page.goto(app)
    shot("welcome")
    page.get_by_role("button", name="Sign in").first.click()
    page.get_by_label("Email address").fill("grace@example.org")
    shot("sign-in")
    page.get_by_role("button", name="Send me a link").click()
    expect(page.get_by_role("heading", name="Check your mailbox")).to_be_visible()
    shot("mailed")

    with Researcher(live, "grace@example.org") as robot:
        robot.mailed_link()  # the mail has come
        mail = page.context.new_page()
        mail.goto(live["urls"]["outbox"])
        shot("outbox", mail)
        mail.locator("a[href*='/login']").first.click()
        link = mail.context.pages[-1]
        expect(link.get_by_role("button", name="Sign me in")).to_be_visible()
        shot("link", link)
        link.get_by_role("button", name="Sign me in").click()
        expect(link.get_by_role("navigation", name="My requests")).to_be_visible()
        page.close()
        page = link

        page.get_by_role("link", name="Submit a request").or_(
            page.get_by_role("link", name="Submit")
        ).first.click()
        page.get_by_role("checkbox").check()
        shot("submit", page)
        page.get_by_role("button", name="Create the request").click()
        expect(page.get_by_text("Your request has been created")).to_be_visible()
        shot("created", page)

        with page.context.expect_page() as opened:
            page.get_by_role("link", name="Fill in").first.click()
        survey = opened.value
        shot("survey-empty", survey)
        fill(survey, dict(INVITES_FOR_RESEARCH))
        shot("survey-filled", survey)
        submit(survey)
        shot("survey-done", survey)
        survey.close()

        follow = page.get_by_role("link", name=re.compile("^In progress"))
        expect(follow).to_be_visible()  # the page learns of it by itself
        follow.click()
        expect(page.get_by_text("Emmy Noether").first).to_be_visible()
        expect(page.get_by_text("Under review").first).to_be_visible()
        shot("opinions-awaited", page)

        request = request_id(page)
        opinions = {"demandeur_composante": "composante", "labo": "laboratoire"}
        for instrument, prefix in opinions.items():
            robot.give_opinion(request, instrument, prefix, "1")
        complete = page.get_by_role("link", name=re.compile("^Action required"))
        expect(complete).to_be_visible()
        complete.click()
        shot("final-open", page)
        with page.context.expect_page() as opened:
            page.get_by_role("link", name="Confirm").first.click()
        submit(opened.value)
        opened.value.close()
        expect(follow).to_be_visible()
        follow.click()
        expect(page.get_by_text("Finished").first).to_be_visible()
        shot("finished", page)

        page.get_by_role("link", name="My data").click()
        shot("data", page)
        for name, head in (("JSON", b'{"data":'), ("CSV", b""), ("PDF", b"%PDF-")):
            if name == "PDF":
                follow.click()
            with page.expect_download() as download:
                page.get_by_role("link", name=name).first.click()
            content = Path(download.value.path()).read_bytes()
            assert content.startswith(head)
            assert name == "PDF" or b"Emmy Noether" in content

        page.get_by_role("link", name="My account").click()
        shot("account", page)
        page.get_by_role("button", name="Sign out").first.click()
        expect(page.get_by_role("heading", name="See you soon")).to_be_visible()
        shot("signed-out", page)


def request_id(page: Page) -> str:
    """Return the id of the only request, using the browser's session."""
    answer = page.evaluate("fetch('/api/v1/surveys/requests').then(r => r.json())")
    return str(answer["data"][0]["id"])
