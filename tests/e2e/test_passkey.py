"""Passkeys in a real browser, with the virtual authenticator of Chromium."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integration.researcher import Researcher

pytestmark = pytest.mark.browser

AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose browser has a fingerprint reader that always succeeds."""
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(15_000)
    session = context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    session.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})
    yield page
    context.close()


def test_second_way_and_second_factor(live: Any, page: Page) -> None:
    """
    A passkey added after the first sign-in signs in again without mail, and, after opting in, is
    required in addition to a mailed link.
    """
    port = urlsplit(live["urls"]["app"]).port
    app = f"http://localhost:{port}"
    with Researcher(live, "passkey@example.org") as robot:
        robot.ask_for_link()
        link = robot.mailed_link()
    page.goto(link.replace(live["urls"]["app"], app))
    page.get_by_role("button", name="Sign me in").click()
    page.wait_for_url(f"{app}/")

    page.goto(f"{app}/?tab=account")
    adding = page.locator("[data-passkey=add]")
    adding.locator("input[name=name]").fill("Work laptop")
    with page.expect_response("**/api/v1/auth/passkeys") as added:
        adding.get_by_role("button").click()
    assert added.value.ok
    expect(page.get_by_text("Work laptop")).to_be_visible()

    page.context.clear_cookies()
    page.goto(f"{app}/signup")
    page.locator("[data-passkey=sign-in]:visible").get_by_role("button").click()
    page.wait_for_url(f"{app}/")
    me = page.evaluate("fetch('/api/v1/me').then(answer => answer.json())")
    assert "passkey@example.org" == me["data"]["email"]

    page.goto(f"{app}/?tab=account")
    page.get_by_role("button", name="Always require a passkey").click()
    expect(page.get_by_role("button", name="Stop requiring a passkey")).to_be_visible()
    page.context.clear_cookies()
    with Researcher(live, "passkey@example.org") as robot:
        robot.ask_for_link()
        link = robot.mailed_link()
    page.goto(link.replace(live["urls"]["app"], app))
    page.get_by_role("button", name="Sign me in").click()
    expect(page.get_by_role("heading", name="Use your passkey")).to_be_visible()
    refused = page.evaluate("fetch('/api/v1/surveys/list').then(answer => answer.json())")
    assert "second_factor_required" == refused["error"]["cause"]
    page.locator("[data-passkey=sign-in]:visible").get_by_role("button").click()
    expect(page.get_by_role("heading", name="Submit a request")).to_be_visible()

    page.set_viewport_size({"width": 360, "height": 740})
    for path in ("/?tab=account&lang=fr", "/confirm?lang=fr"):
        page.goto(f"{app}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
