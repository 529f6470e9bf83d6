"""Pages in a real Chromium: cross-site cookies, live updates, CSP, small screens."""

import json
import shutil
import time
from collections.abc import AsyncIterator

import pytest
from amarre.survey.v1 import survey_pb2, survey_service_pb2
from playwright.async_api import Browser, Page, Route, async_playwright, expect

from gateway.server.listeners import Listener
from mesh.chassis import call
from mesh.chassis.errors import UnavailableError
from tests.gateway.conftest import World

pytestmark = pytest.mark.browser

SECONDS = 1000.0
PAGES = ("/", "/signup", "/login?userId=aa&secret=bb", "/login", "/notice", "/none", "/api/docs")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, headless."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        await browser.close()


@pytest.fixture
async def app(world: World) -> AsyncIterator[str]:
    """The origin of a gateway on a real port."""
    listener = Listener(
        world.gateway.app, "127.0.0.1:0", tls_dir=None, drain_timeout=world.settings.drain_timeout
    )
    await listener.start()
    yield f"http://localhost:{listener.port}"
    world.gateway.api.stopping.set()
    await listener.stop()


@pytest.fixture
async def page(browser: Browser, app: str) -> AsyncIterator[Page]:
    """A phone-sized English tab that records every console message of the browser."""
    context = await browser.new_context(
        base_url=app, locale="en-GB", viewport={"width": 360, "height": 740}
    )
    page = await context.new_page()
    page.set_default_timeout(10 * SECONDS)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    await context.close()
    # That a page asked for is refused is no complaint about the page shown.
    assert [] == [c for c in complaints if not c.startswith("Failed to load resource")]


WITHOUT_JSON = {
    "absent": """
        delete PublicKeyCredential.parseCreationOptionsFromJSON;
        delete PublicKeyCredential.parseRequestOptionsFromJSON;
        delete PublicKeyCredential.prototype.toJSON;
    """,
    "throws": """
        const fail = () => { throw new TypeError("Illegal invocation"); };
        PublicKeyCredential.parseCreationOptionsFromJSON = fail;
        PublicKeyCredential.parseRequestOptionsFromJSON = fail;
        PublicKeyCredential.prototype.toJSON = fail;
    """,
}


async def sign_in(page: Page) -> None:
    """Open a mailed link and sign in."""
    await page.goto("/login?userId=aa&secret=bb")
    await page.get_by_role("button", name="Sign me in").click()
    await page.get_by_role("button", name="Sign out").first.wait_for()


async def from_another_site(page: Page, address: str) -> None:
    """Click a link to *address* on a page of another site, as in a web mail."""

    async def mail(route: Route) -> None:
        body = f'<a href="{address}">the link</a>'
        await route.fulfill(body=body, content_type="text/html")

    await page.route("http://mail.test/", mail)
    await page.goto("http://mail.test/")
    await page.get_by_text("the link").click()


async def fits(page: Page) -> bool:
    """Return whether the page has no horizontal overflow."""
    return bool(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


async def test_mailed_link_from_another_site(page: Page, app: str) -> None:
    """A link clicked in a web mail signs the visitor in and shows it."""
    await from_another_site(page, f"{app}/login?userId=aa&secret=bb")
    await page.get_by_role("button", name="Sign me in").click()
    await expect(page.get_by_role("button", name="Sign out").first).to_be_visible()
    assert f"{app}/" == page.url


async def test_home_from_another_site(page: Page, app: str) -> None:
    """A signed-in visitor from another site does not look signed out."""
    await sign_in(page)
    await from_another_site(page, f"{app}/")
    await expect(page.get_by_role("button", name="Sign out").first).to_be_visible()


async def test_stranger_from_another_site(page: Page, app: str) -> None:
    """A signed-out visitor from another site sees the welcome page."""
    await from_another_site(page, f"{app}/")
    await expect(page.get_by_role("button", name="Get started")).to_be_visible()


async def test_form_of_another_site(page: Page, app: str, world: World) -> None:
    """A form on another site cannot act for the visitor."""
    await sign_in(page)

    async def evil(route: Route) -> None:
        body = f'<form method="post" action="{app}/logout"><button>Win</button></form>'
        await route.fulfill(body=body, content_type="text/html")

    await page.route("http://evil.test/", evil)
    await page.goto("http://evil.test/")
    await page.get_by_text("Win").click()
    await expect(page.get_by_text("csrf_failed")).to_be_visible()
    assert 0 == world.auth.does.count("LogOut")
    await page.goto("about:blank")


async def test_dialog(page: Page) -> None:
    """The sign-in dialog works without scripts."""
    await page.goto("/")
    await page.get_by_role("button", name="Get started").click()
    await page.get_by_label("Email address").fill("ada@example.org")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Check your mailbox")).to_be_visible()


async def test_live_update(page: Page, world: World) -> None:
    """A change appears on the page without a reload."""
    request = survey_pb2.Request(
        id="7", title="Grace", status=survey_pb2.REQUEST_STATUS_TO_COMPLETE
    )
    world.survey.listed = [request]
    await sign_in(page)
    await page.get_by_role("heading", name="Grace").wait_for()
    request.title = "Grace Hopper"
    change = survey_pb2.RequestChange(kind=survey_pb2.CHANGE_KIND_CHANGED, request=request)
    world.survey.events.put_nowait(
        survey_service_pb2.WatchRequestsResponse(event_id="1", change=change)
    )
    await expect(page.get_by_role("heading", name="Grace Hopper")).to_be_visible()


@pytest.mark.parametrize("tab", ["complete", "account"])
async def test_two_users_in_one_browser(page: Page, world: World, tab: str) -> None:
    """
    A page of a user who has signed out, or of another user than the one signed in now, is replaced
    once it is visible again.
    """
    world.survey.listed = [
        survey_pb2.Request(id="7", title="Grace", status=survey_pb2.REQUEST_STATUS_TO_COMPLETE)
    ]
    await sign_in(page)
    await page.goto(f"/?tab={tab}")
    world.auth.sessions[world.auth.next_secret] = call.User(
        "bob", "s2", "bob@example.org", (), int(time.time())
    )
    world.gateway.api.sessions.forget_user("ada")
    await show_again(page)
    await expect(page.locator(".who")).to_have_text("bob@example.org")
    world.auth.sessions.clear()
    world.gateway.api.sessions.forget_user("bob")
    await show_again(page)
    await expect(page.get_by_role("button", name="Get started")).to_be_visible()


async def test_passkey_of_another_user(page: Page, world: World) -> None:
    """A passkey is not added for another user than the one whom the page shows."""
    await sign_in(page)
    await page.goto("/?tab=account")
    world.auth.sessions[world.auth.next_secret] = call.User(
        "bob", "s2", "bob@example.org", (), int(time.time())
    )
    world.gateway.api.sessions.forget_user("ada")
    world.auth.creating_for = "bob"
    await page.get_by_role("button", name="Add a passkey").click()
    await expect(page.locator(".who")).to_have_text("bob@example.org")
    assert 0 == world.auth.does.count("AddPasskey")


async def show_again(page: Page) -> None:
    """Let the page believe that its tab was hidden and is visible again."""
    await page.evaluate("""
        for (const value of ["hidden", "visible"]) {
          Object.defineProperty(document, "visibilityState", { value, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }
    """)


async def test_explorer(page: Page) -> None:
    """A call can be tried from the API explorer."""
    await page.goto("/api/docs")
    operation = page.locator("details", has_text="/api/v1/health/status")
    await operation.locator("summary").click()
    await operation.get_by_role("button", name="Send").click()
    await expect(operation.locator("output")).to_contain_text("HEALTH_STATUS_HEALTHY")


async def test_passkey(page: Page, world: World) -> None:
    """A passkey is added on the account tab, signs in without mail, and can be removed."""
    browser = await page.context.new_cdp_session(page)
    await browser.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
    }
    await browser.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    await sign_in(page)
    await page.goto("/?tab=account")
    await page.get_by_label("Passkey name").fill("Phone")
    await page.get_by_role("button", name="Add a passkey").click()
    await expect(page.locator("li", has_text="Phone")).to_be_visible()
    assert "Phone" == world.auth.does.last("AddPasskey").name

    await page.get_by_role("button", name="Sign out", exact=True).first.click()
    await page.goto("/signup")
    await page.get_by_role("button", name="Use a passkey").click()
    await expect(page.get_by_role("button", name="Sign out").first).to_be_visible()

    await page.goto("/?tab=account")
    await page.get_by_role("button", name="Remove Phone").click()
    await expect(page.locator("li", has_text="Phone")).to_have_count(0)
    assert not world.auth.passkeys

    await page.get_by_role("button", name="Sign out", exact=True).first.click()
    await page.goto("/signup")
    await page.get_by_role("button", name="Use a passkey").click()
    await expect(page.get_by_text("Signing in with this passkey failed")).to_be_visible()


@pytest.mark.parametrize("language", ["fr", "en"])
async def test_small_screen(page: Page, world: World, language: str) -> None:
    """No page is wider than a small phone, and none breaks the content security policy."""
    request = survey_pb2.Request(
        id="7", title="Long" * 20, status=survey_pb2.REQUEST_STATUS_TO_COMPLETE
    )
    request.steps.add(
        instrument="demandeur_composante",
        kind=survey_pb2.STEP_KIND_OPINION,
        state=survey_pb2.STEP_STATE_DONE,
        opinion=survey_pb2.OPINION_WITH_RESERVATIONS,
    )
    world.survey.listed = [request]
    await page.goto(f"/?lang={language}")
    for path in PAGES:
        await page.goto(path)
        assert await fits(page), path
    await page.goto("/login?userId=aa&secret=bb")
    await page.locator("main button").click()
    await page.wait_for_url("/")
    for tab in ("submit", "complete", "account", "data"):
        await page.goto(f"/?tab={tab}")
        assert await fits(page), tab


async def test_reconnects(page: Page, world: World) -> None:
    """After a 503 or 429 the live page reconnects, with the list first (HTML, section 9.2.3)."""
    world.survey.listed = [
        survey_pb2.Request(id="7", title="Grace", status=survey_pb2.REQUEST_STATUS_TO_COMPLETE)
    ]
    await page.add_init_script("Math.random = () => 0")
    world.survey.does.failures["WatchRequests"] = UnavailableError("Unavailable.")
    async with page.expect_response(lambda response: "surveys/events" in response.url) as refused:
        await sign_in(page)
    assert 503 == (await refused.value).status
    del world.survey.does.failures["WatchRequests"]
    world.survey.listed[0].title = "Grace Hopper"
    await expect(page.get_by_role("heading", name="Grace Hopper")).to_be_visible(timeout=30_000)


async def test_reset(page: Page, world: World) -> None:
    """A RESET event makes the page fetch the list again, which removes deleted requests."""
    world.survey.listed = [
        survey_pb2.Request(id=n, title=f"Request {n}", status=survey_pb2.REQUEST_STATUS_TO_COMPLETE)
        for n in "78"
    ]
    await sign_in(page)
    await page.get_by_role("heading", name="Request 8").wait_for()
    del world.survey.listed[1]
    change = survey_pb2.RequestChange(kind=survey_pb2.CHANGE_KIND_RESET)
    world.survey.events.put_nowait(
        survey_service_pb2.WatchRequestsResponse(event_id="1", change=change)
    )
    await expect(page.get_by_role("heading", name="Request 8")).to_have_count(0)
    await expect(page.get_by_role("heading", name="Request 7")).to_be_visible()


@pytest.mark.parametrize("missing", ["absent", "throws"])
async def test_passkey_without_json_methods(page: Page, world: World, missing: str) -> None:
    """
    Passkeys work where the browser's JSON conversions are absent or throw.

    Source: Web Authentication Level 3, sections 5.1.3, 5.1.8 and 5.1.9 (optional conversions).
    """
    await page.add_init_script(WITHOUT_JSON[missing])
    browser = await page.context.new_cdp_session(page)
    await browser.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
    }
    await browser.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    await sign_in(page)
    await page.goto("/?tab=account")
    await page.get_by_label("Passkey name").fill("Phone")
    await page.get_by_role("button", name="Add a passkey").click()
    await expect(page.locator("li", has_text="Phone")).to_be_visible()
    added = json.loads(world.auth.does.last("AddPasskey").credential_json)
    assert {"clientDataJSON", "attestationObject", "transports"} == set(added["response"])
    await page.get_by_role("button", name="Sign out", exact=True).first.click()
    await page.goto("/signup")
    await page.get_by_role("button", name="Use a passkey").click()
    await expect(page.get_by_role("button", name="Sign out").first).to_be_visible()
    shown = json.loads(world.auth.does.last("LogInWithPasskey").credential_json)
    assert added["id"] == shown["id"] == shown["rawId"]
    assert {"clientDataJSON", "authenticatorData", "signature", "userHandle"} <= set(
        shown["response"]
    )


async def test_no_passkeys(page: Page) -> None:
    """A browser without WebAuthn gets a sentence instead of a button."""
    await page.add_init_script("delete window.PublicKeyCredential")
    await sign_in(page)
    await page.goto("/?tab=account")
    await expect(page.get_by_text("does not support passkeys")).to_be_visible()
    await expect(page.get_by_role("button", name="Add a passkey")).to_have_count(0)
