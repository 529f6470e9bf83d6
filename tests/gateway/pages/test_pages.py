"""Pages as used by a browser without scripts."""

import re

import pytest
from amarre.auth.v1 import auth_pb2
from amarre.survey.v1 import survey_pb2

from gateway.pages import languages
from gateway.sessions.cookies import NAME
from mesh.chassis.errors import (
    ConflictError,
    MeshError,
    RateLimitedError,
    UnauthenticatedError,
    UnavailableError,
    UpstreamError,
)
from tests.gateway.conftest import World

HTML = {"accept": "text/html", "accept-language": "en"}


async def get(world: World, path: str, status: int = 200) -> str:
    """Return the page at *path* in English."""
    answer = await world.http.get(path, headers=HTML)
    assert status == answer.status_code
    return answer.text


def request_of(status: survey_pb2.RequestStatus.ValueType, **step: object) -> survey_pb2.Request:
    """Return a request with one step."""
    request = survey_pb2.Request(id="7", title="Grace Hopper", status=status)
    request.steps.add(**{"instrument": "form", "kind": survey_pb2.STEP_KIND_FORM, **step})
    return request


class TestLanguages:
    def test_same_texts(self) -> None:
        """Both languages have the same texts with the same placeholders."""

        def flat(texts: object, path: str = "") -> dict[str, list[str]]:
            if isinstance(texts, dict):
                found = (flat(value, f"{path}.{key}") for key, value in texts.items())
                return {name: facts for part in found for name, facts in part.items()}
            return {path: sorted(re.findall(r"{(\w+)}", str(texts)))}

        assert flat(dict(languages.texts("fr"))) == flat(dict(languages.texts("en")))

    @pytest.mark.parametrize(
        ("header", "language"),
        [
            ("", "fr"),
            ("en", "en"),
            ("en-GB,en;q=0.9", "en"),
            ("de,en;q=0.5,fr;q=0.4", "en"),
            ("en;q=0.1,fr;q=0.9", "fr"),
            ("de", "fr"),
            ("en;q=x", "fr"),
            (";;,=,q", "fr"),
        ],
    )
    async def test_accepted(self, world: World, header: str, language: str) -> None:
        """A supported language of the visitor is used, otherwise French."""
        answer = await world.http.get("/", headers={"accept-language": header})
        assert language == answer.headers["content-language"]
        assert f'<html lang="{language}">' in answer.text

    async def test_chosen(self, world: World) -> None:
        """A chosen language is remembered and takes precedence over Accept-Language."""
        answer = await world.http.get("/?lang=en", headers={"accept-language": "fr"})
        assert "lang=en" in answer.headers["set-cookie"]
        again = await world.http.get("/", headers={"accept-language": "fr", "cookie": "lang=en"})
        assert "en" == again.headers["content-language"]


class TestSigningIn:
    async def test_link_page_consumes_nothing(self, world: World) -> None:
        """Opening a mailed link, as mail scanners do, does not consume it and is not cached."""
        for method in ("GET", "HEAD"):
            answer = await world.http.request(method, "/login?userId=aa&secret=bb", headers=HTML)
            assert 200 == answer.status_code
            assert "no-store" == answer.headers["cache-control"]
        assert not world.auth.does.requests

    async def test_button_signs_in(self, world: World) -> None:
        """The button opens the session and redirects home."""
        form = {"userId": "aa", "secret": "bb"}
        answer = await world.http.post("/login", data=form, headers=HTML)
        assert (303, "/?signed_in=1") == (answer.status_code, answer.headers["location"])
        assert f"{NAME}={world.auth.next_secret}" in answer.headers["set-cookie"]

    @pytest.mark.parametrize(
        ("failure", "status", "text"),
        [
            (UnauthenticatedError("Used."), 401, "no longer works"),
            (UnavailableError("Unavailable."), 503, "Your link is still valid"),
            (RateLimitedError("Many."), 429, "Too many attempts"),
        ],
    )
    async def test_link_refused(
        self, world: World, failure: MeshError, status: int, text: str
    ) -> None:
        """A link that fails shows why and offers a new one."""
        world.auth.does.failures["LogIn"] = failure
        form = {"userId": "aa", "secret": "bb"}
        answer = await world.http.post("/login", data=form, headers=HTML)
        assert status == answer.status_code
        assert text in answer.text
        assert 'href="/signup"' in answer.text

    async def test_mail(self, world: World) -> None:
        """Requesting a link confirms it in the visitor's language."""
        form = {"email": " ada@example.org "}
        answer = await world.http.post("/signup", data=form, headers=HTML)
        assert "Check your mailbox" in answer.text
        sent = world.auth.does.last("SignUp")
        assert ("ada@example.org", "en", "127.0.0.1") == (
            sent.email,
            sent.language,
            sent.client_address,
        )

    async def test_bad_address(self, world: World) -> None:
        """An invalid address is shown again in the form, escaped, with an error message."""
        answer = await world.http.post("/signup", data={"email": '"><b>'}, headers=HTML)
        assert 400 == answer.status_code
        assert "not accepted" in answer.text
        assert "<b>" not in answer.text

    async def test_from_another_site(self, world: World) -> None:
        """A click from another site, which carries no strict cookie, does not look signed out."""
        headers = {**HTML, "sec-fetch-site": "cross-site"}
        answer = await world.http.get("/", headers=headers)
        assert '<meta http-equiv="refresh" content="0">' in answer.text
        headers["sec-fetch-site"] = "same-origin"
        assert "refresh" not in (await world.http.get("/", headers=headers)).text

    async def test_session_ended(self, world: World) -> None:
        """A visitor with an ended session is told so, and the cookie is deleted."""
        world.sign_in()
        world.auth.sessions.clear()
        answer = await world.http.get("/", headers=HTML)
        assert "Your session has ended" in answer.text
        assert f'{NAME}=""' in answer.headers["set-cookie"]

    async def test_auth_unavailable(self, world: World) -> None:
        """While Auth is unavailable the page says so and the cookie stays."""
        world.sign_in()
        world.auth.does.failures["VerifySession"] = UnavailableError("Unavailable.")
        answer = await world.http.get("/", headers=HTML)
        assert 503 == answer.status_code
        assert "You are still signed in" in answer.text
        assert "set-cookie" not in answer.headers


class TestRequests:
    @pytest.mark.parametrize(
        "failure", [UnavailableError("Unavailable."), UpstreamError("HTML instead of JSON.")]
    )
    async def test_outage(self, world: World, failure: MeshError) -> None:
        """While REDCap fails, the page says so instead of showing an empty list."""
        world.sign_in()
        world.survey.does.failures["ListRequests"] = failure
        page = await get(world, "/", failure.contract.http)
        assert "Your requests cannot be shown" in page
        assert "ada@example.org" in page

    async def test_card(self, world: World) -> None:
        """A request shows its title, its steps with their states, and the next link."""
        world.sign_in()
        request = request_of(
            survey_pb2.REQUEST_STATUS_TO_COMPLETE,
            state=survey_pb2.STEP_STATE_TO_DO,
            url="https://redcap.test/surveys/?s=1&x=<b>",
        )
        request.steps.add(
            instrument="labo",
            kind=survey_pb2.STEP_KIND_OPINION,
            state=survey_pb2.STEP_STATE_DONE,
            opinion=survey_pb2.OPINION_UNFAVOURABLE,
        )
        world.survey.listed = [request]
        page = await get(world, "/")
        assert "Grace Hopper" in page
        assert "To fill in" in page
        assert "https://redcap.test/surveys/?s=1&amp;x=&lt;b&gt;" in page
        assert 'class="step against"' in page

    async def test_stopped(self, world: World) -> None:
        """A request stopped by an unfavourable opinion does not look like one in progress."""
        world.sign_in()
        world.survey.listed = [
            request_of(
                survey_pb2.REQUEST_STATUS_TO_FOLLOW,
                kind=survey_pb2.STEP_KIND_OPINION,
                state=survey_pb2.STEP_STATE_DONE,
                opinion=survey_pb2.OPINION_UNFAVOURABLE,
            )
        ]
        page = await get(world, "/?tab=follow")
        assert "Stopped" in page
        assert "In progress" not in page

    async def test_filled_form_is_pdf(self, world: World) -> None:
        """A filled form links to its PDF, with the id escaped."""
        world.sign_in()
        request = request_of(survey_pb2.REQUEST_STATUS_TO_FOLLOW, state=survey_pb2.STEP_STATE_DONE)
        request.id = "a&b"
        world.survey.listed = [request]
        assert "/api/v1/surveys/pdf?record_id=a%26b" in await get(world, "/?tab=follow")

    async def test_script_url(self, world: World) -> None:
        """Only http and https URLs become links."""
        world.sign_in()
        world.survey.listed = [
            request_of(
                survey_pb2.REQUEST_STATUS_TO_COMPLETE,
                state=survey_pb2.STEP_STATE_TO_DO,
                url="javascript:alert(1)",
            )
        ]
        assert "javascript:" not in await get(world, "/")

    async def test_tabs(self, world: World) -> None:
        """A tab appears only when it has content."""
        world.sign_in()
        page = await get(world, "/")
        assert "tab=complete" not in page
        assert "tab=submit" in page
        world.survey.listed = [request_of(survey_pb2.REQUEST_STATUS_DONE)]
        page = await get(world, "/?tab=complete")
        assert "tab=follow" in page
        assert "Finished" in page

    async def test_create(self, world: World) -> None:
        """The form creates a request with consent, the notice that was shown, and a key."""
        world.sign_in()
        page = await get(world, "/?tab=submit")
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]+)"', page))
        answer = await world.http.post("/requests", data={**fields, "consent": "yes"})
        assert 303 == answer.status_code
        sent = world.survey.does.last("CreateRequest")
        assert sent.consent
        assert fields["notice_version"] == sent.notice_version
        assert fields["key"] == sent.idempotency_key

    async def test_not_created(self, world: World) -> None:
        """An error is shown on the form with its reason."""
        world.sign_in()

        class OpenError(ConflictError):
            area, reason = "survey", "OPEN_REQUEST_EXISTS"

        world.survey.does.failures["CreateRequest"] = OpenError("One is open.")
        answer = await world.http.post("/requests", data={"consent": "yes"}, headers=HTML)
        assert 409 == answer.status_code
        assert "You already have a request" in answer.text

    async def test_create_signed_out(self, world: World) -> None:
        """Creating without a session leads to the welcome page, and creates nothing."""
        answer = await world.http.post("/requests", data={"consent": "yes"}, headers=HTML)
        assert 401 == answer.status_code
        assert not world.survey.does.requests


class TestAccount:
    async def test_devices(self, world: World) -> None:
        """The account lists signed-in devices and marks the current one."""
        world.sign_in()
        page = await get(world, "/?tab=account")
        assert 2 == page.count("<strong>Firefox on Linux")
        assert 1 == page.count("this device")
        assert 1 == page.count('aria-label="Sign out Firefox on Linux"')

    async def test_end_of_another_device(self, world: World) -> None:
        """The button of another device ends its session and returns to the account."""
        world.sign_in()
        answer = await world.http.post("/sessions/end", data={"id": "s9"})
        assert (303, "/?tab=account") == (answer.status_code, answer.headers["location"])
        assert "s9" == world.auth.does.last("EndSession").id

    async def test_passkeys(self, world: World) -> None:
        """The account lists passkeys; the rest is shown when they are unavailable."""
        world.sign_in()
        passkey = auth_pb2.Passkey(id="k", name="Phone")
        passkey.create_time.GetCurrentTime()
        world.auth.passkeys.append(passkey)
        assert 'aria-label="Remove Phone"' in await get(world, "/?tab=account")
        await world.http.post("/passkeys/remove", data={"id": "k"})
        assert "Phone" not in await get(world, "/?tab=account")
        world.auth.does.failures["ListPasskeys"] = UnavailableError("Unavailable.")
        page = await get(world, "/?tab=account")
        assert "The list of passkeys is not available" in page
        assert "this device" in page

    @pytest.mark.parametrize("everywhere", [False, True])
    async def test_log_out(self, world: World, everywhere: bool) -> None:
        """Log-out ends this session, or all sessions."""
        world.sign_in()
        form = {"everywhere": "yes"} if everywhere else {"everywhere": ""}
        answer = await world.http.post("/logout", data=form, headers=HTML)
        assert "See you soon" in answer.text
        assert f'{NAME}=""' in answer.headers["set-cookie"]
        assert everywhere == world.auth.does.last("LogOut").everywhere

    async def test_console(self, world: World) -> None:
        """Only an operator is offered and given a link to the console."""
        world.sign_in()
        assert "/console" not in await get(world, "/?tab=account")
        assert 403 == (await world.http.post("/console", headers=HTML)).status_code

        world.sign_in(labels=("applicant", "operator"))
        assert 'action="/console"' in await get(world, "/?tab=account")
        page = await world.http.post("/console", headers=HTML)
        assert 'href="http://console.test/open?code=once"' in page.text
        assert "no-store" == page.headers["cache-control"]

    @pytest.mark.parametrize(
        ("path", "rpc", "fields"),
        [
            ("/sessions/end", "EndSession", {"id": "one"}),
            ("/passkeys/remove", "RemovePasskey", {"id": "one"}),
            ("/second-factor", "SetSecondFactor", {"required": "yes"}),
        ],
    )
    async def test_not_fresh(
        self, world: World, path: str, rpc: str, fields: dict[str, str]
    ) -> None:
        """
        After too long, the visitor has to sign in again, with a prefilled address, and the change
        is not made; right after signing in, it is.
        """
        world.sign_in(ago=601)
        page = await world.http.post(path, data=fields, headers=HTML)
        assert 403 == page.status_code
        assert "Sign in again" in page.text
        assert 'name="email" value="ada@example.org"' in page.text
        assert 0 == world.auth.does.count(rpc)

        world.sign_in()
        page = await world.http.post(path, data=fields, headers=HTML)
        assert (303, "/?tab=account") == (page.status_code, page.headers["location"])
        assert 1 == world.auth.does.count(rpc)

    async def test_confirm(self, world: World) -> None:
        """If a script needs a fresh sign-in, the visitor is redirected to it."""
        world.sign_in(ago=601)
        answer = await world.http.post("/api/v1/auth/passkeys/begin", json={})
        error = answer.json()["error"]
        assert (403, "permission_denied", "fresh_sign_in_required") == (
            answer.status_code,
            error["code"],
            error["cause"],
        )
        assert "Send a link to ada@example.org" in await get(world, "/confirm")

    async def test_second_factor(self, world: World) -> None:
        """
        A session that needs a passkey is asked for it on every page, or to add a first one; other
        users can opt in on the account page once they have one.
        """
        world.sign_in(partial=True)
        assert 'data-passkey="first"' in await get(world, "/")
        world.auth.passkeys.append(auth_pb2.Passkey(id="one", name="Laptop"))
        page = await get(world, "/?tab=account")
        assert 'data-passkey="sign-in"' in page
        assert "Laptop" not in page
        answer = await world.http.get("/api/v1/surveys/list")
        assert (403, "second_factor_required") == (
            answer.status_code,
            answer.json()["error"]["cause"],
        )

        world.sign_in()
        assert "Always require a passkey" in await get(world, "/?tab=account")
        world.sign_in(labels=("applicant", "secondfactor"))
        assert "Stop requiring a passkey" in await get(world, "/?tab=account")

    async def test_last_passkey_stays(self, world: World) -> None:
        """Removing a required passkey shows the conflict on the account page."""
        world.sign_in()
        world.auth.does.failures["RemovePasskey"] = ConflictError("The last one.")
        page = await world.http.post("/passkeys/remove", data={"id": "one"}, headers=HTML)
        assert 409 == page.status_code
        assert "at least one must remain" in page.text


class TestErrors:
    async def test_for_people(self, world: World) -> None:
        """Browsers get an error page, programs get the envelope."""
        page = await get(world, "/nothing", 404)
        assert "This page does not exist" in page
        assert "error" in (await world.http.get("/nothing")).json()

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            ("{}", "application/json"),
            ("email=%ff", "application/x-www-form-urlencoded"),
            ("email=a&email=b", "application/x-www-form-urlencoded"),
            ("&".join("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"), "application/x-www-form-urlencoded"),
        ],
    )
    async def test_unreadable_form(self, world: World, content: str, kind: str) -> None:
        """A form that cannot be read is 400."""
        headers = {"content-type": kind}
        answer = await world.http.post("/signup", content=content, headers=headers)
        assert (400, "invalid_request") == (answer.status_code, answer.json()["error"]["code"])

    async def test_no_inline_code(self, world: World) -> None:
        """No page needs anything that the content security policy forbids."""
        world.sign_in()
        for path in ("/", "/?tab=account", "/?tab=data", "/notice", "/signup", "/api/docs"):
            page = await get(world, path)
            assert not re.search(r"<script(?![^>]*src=)|<style| style=| on\w+=", page)
