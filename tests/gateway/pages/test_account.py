"""Pages of sign-in and of the account: devices, passkeys, log-out."""

import re

import pytest
from amarre.auth.v1 import auth_pb2

from gateway.sessions.cookies import NAME
from mesh.chassis.errors import (
    ConflictError,
    MeshError,
    RateLimitedError,
    UnauthenticatedError,
    UnavailableError,
)
from tests.gateway.conftest import World
from tests.gateway.pages.test_pages import HTML, get

NO_FIELDS = {"user": "ada"}
"""Only what every form contains."""


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
            (
                UnavailableError("Unavailable."),
                503,
                "same link again in a moment, if it",
            ),
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

    async def test_link_refused_while_signed_in(self, world: World) -> None:
        """A link that was used already, as by a second click, says that one is signed in."""
        world.sign_in()
        world.auth.does.failures["LogIn"] = UnauthenticatedError("Used.")
        form = {"userId": "aa", "secret": "bb"}
        page = await world.http.post("/login", data=form, headers=HTML)
        assert 401 == page.status_code
        assert "You are already signed in as" in page.text
        assert 'href="/signup"' not in page.text

    async def test_mail(self, world: World) -> None:
        """Requesting a link confirms it in the visitor's language."""
        form = {"email": " ada@example.org "}
        answer = await world.http.post("/signup", data=form, headers=HTML)
        assert "Check your mailbox" in answer.text
        assert "is being sent" in answer.text
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

    async def test_unavailable_while_signed_out(self, world: World) -> None:
        """A sign-in form that fails does not claim that its visitor is signed in."""
        world.auth.does.failures["SignUp"] = UnavailableError("Unavailable.")
        form = {"email": "ada@example.org"}
        answer = await world.http.post("/signup", data=form, headers=HTML)
        assert 503 == answer.status_code
        assert "is not responding" in answer.text
        assert "signed in" not in answer.text

    async def test_unknown_visitor(self, world: World) -> None:
        """While Auth is unavailable, the privacy notice offers no sign-in to whom may have it."""
        world.sign_in()
        world.auth.does.failures["VerifySession"] = UnavailableError("Unavailable.")
        assert "Sign in" not in await get(world, "/notice")
        del world.auth.does.failures["VerifySession"]
        assert "ada@example.org" in await get(world, "/notice")
        world.auth.sessions.clear()
        world.gateway.api.sessions.forget_user("ada")
        assert "Sign in" in await get(world, "/notice")

    async def test_from_another_site(self, world: World) -> None:
        """A click from another site, which carries no strict cookie, does not look signed out."""
        headers = {**HTML, "sec-fetch-site": "cross-site"}
        answer = await world.http.get("/", headers=headers)
        assert '<meta http-equiv="refresh" content="0">' in answer.text
        headers["sec-fetch-site"] = "same-origin"
        assert "refresh" not in (await world.http.get("/", headers=headers)).text

    async def test_session_ended(self, world: World) -> None:
        """A visitor whose session has ended sees a message, and the cookie is deleted."""
        world.sign_in()
        world.auth.sessions.clear()
        answer = await world.http.get("/", headers=HTML)
        assert "Your session has ended" in answer.text
        assert f'{NAME}=""' in answer.headers["set-cookie"]

    async def test_auth_unavailable(self, world: World) -> None:
        """While Auth is unavailable, the page shows that, and the cookie is kept."""
        world.sign_in()
        world.auth.does.failures["VerifySession"] = UnavailableError("Unavailable.")
        answer = await world.http.get("/", headers=HTML)
        assert 503 == answer.status_code
        assert "You have not been signed out" in answer.text
        assert "set-cookie" not in answer.headers


class TestAccount:
    async def test_devices(self, world: World) -> None:
        """The account lists signed-in devices and marks the current one."""
        world.sign_in()
        page = await get(world, "/?tab=account")
        assert 2 == page.count("<strong>Firefox on Linux")
        assert 1 == page.count("this device")
        assert 1 == page.count('aria-label="Sign out Firefox on Linux"')
        assert "<strong>Firefox sous Linux" in await get(world, "/?tab=account&lang=fr")

    @pytest.mark.parametrize(("count", "shown"), [(121, 121), (4000, 4000), (4001, 4000)])
    async def test_many_devices(self, world: World, count: int, shown: int) -> None:
        """Every device is listed, or else the page says that it shows only the newest."""
        world.sign_in()
        world.auth.open_sessions = count
        page = await get(world, "/?tab=account")
        assert shown == page.count("<strong>Firefox on Linux")
        assert (count > shown) is ("Only your 4000 newest sessions are shown" in page)

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

    @pytest.mark.parametrize(
        ("ended", "failing", "text"),
        [
            (False, False, "signed out on all your devices"),
            (True, False, "Your session had already ended"),
            (False, True, "Signed out on this device only"),
        ],
    )
    async def test_log_out_everywhere(
        self, world: World, ended: bool, failing: bool, text: str
    ) -> None:
        """Log-out everywhere says what it knows about other devices."""
        world.sign_in()
        if ended:
            world.auth.sessions.clear()
        if failing:
            world.auth.does.failures["LogOut"] = UnavailableError("Unavailable.")
        page = await world.http.post("/logout", data={"everywhere": "yes"}, headers=HTML)
        assert text in page.text

    async def test_console(self, world: World) -> None:
        """Only an operator is offered and given a link to the console."""
        world.sign_in()
        assert "/console" not in await get(world, "/?tab=account")
        assert 403 == (await world.http.post("/console", data=NO_FIELDS, headers=HTML)).status_code

        world.sign_in(labels=("applicant", "operator"))
        assert 'action="/console"' in await get(world, "/?tab=account")
        page = await world.http.post("/console", data=NO_FIELDS, headers=HTML)
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

    @pytest.mark.parametrize(
        ("path", "rpc"),
        [
            ("/requests", "CreateRequest"),
            ("/console", "EnterConsole"),
            ("/sessions/end", "EndSession"),
            ("/passkeys/remove", "RemovePasskey"),
            ("/second-factor", "SetSecondFactor"),
        ],
    )
    async def test_form_of_another_user(self, world: World, path: str, rpc: str) -> None:
        """A form that was rendered for another user changes nothing and names who is signed in."""
        world.sign_in("bob", labels=("operator",))
        fields = {"user": "ada", "consent": "yes", "id": "one", "required": "yes"}
        page = await world.http.post(path, data=fields, headers=HTML)
        assert 409 == page.status_code
        assert "Another user is signed in" in page.text
        assert "bob@example.org" in page.text
        assert 0 == world.auth.does.count(rpc) + world.survey.does.count(rpc)
        await world.http.post(path, data=fields | {"user": "bob"}, headers=HTML)
        assert 1 == world.auth.does.count(rpc) + world.survey.does.count(rpc)

    @pytest.mark.parametrize("labels", [("operator",), ("operator", "secondfactor")])
    async def test_forms_name_their_user(self, world: World, labels: tuple[str, ...]) -> None:
        """Every form that acts on the session names the user of its page; log-out always works."""
        world.sign_in(labels=labels)
        world.auth.passkeys.append(auth_pb2.Passkey(id="k", name="Phone"))
        actions = set()
        for path in ("/?tab=submit", "/?tab=account", "/confirm"):
            page = await get(world, path)
            assert '<main id="content" class="wrap" tabindex="-1" data-user="ada">' in page
            for action, form in re.findall(r'<form[^>]* action="([^"]+)">(.*?)</form>', page, re.S):
                named = '<input type="hidden" name="user" value="ada">' in form
                assert named is (action not in {"/logout", "/signup"}), action
                actions.add(action)
        changes = {"/requests", "/console", "/sessions/end", "/passkeys/remove", "/second-factor"}
        assert changes | {"/logout", "/signup"} == actions

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

    @pytest.mark.parametrize("fields", [{}, {"required": ""}, {"required": "maybe"}])
    async def test_unclear_second_factor(self, world: World, fields: dict[str, str]) -> None:
        """The second factor is only turned on or off by a form that says which."""
        world.sign_in(labels=("applicant", "secondfactor"))
        page = await world.http.post("/second-factor", data=NO_FIELDS | fields, headers=HTML)
        assert 400 == page.status_code
        assert 0 == world.auth.does.count("SetSecondFactor")

    async def test_second_factor_form(self, world: World) -> None:
        """The form on the account page turns the second factor off, or on."""
        world.auth.passkeys.append(auth_pb2.Passkey(id="one", name="Laptop"))
        for labels, required in (("secondfactor",), False), ((), True):
            world.sign_in(labels=labels)
            account = await get(world, "/?tab=account")
            form = account[account.index('action="/second-factor"') :]
            fields = dict(re.findall(r'name="(\w+)" value="(\w+)"', form[: form.index("</form>")]))
            page = await world.http.post("/second-factor", data=fields, headers=HTML)
            assert 303 == page.status_code
            assert required is world.auth.does.last("SetSecondFactor").required

    @pytest.mark.parametrize(
        ("path", "fields", "text"),
        [
            ("/passkeys/remove", {"id": "one"}, "This is your last passkey"),
            ("/second-factor", {"required": "yes"}, "You have no passkey yet"),
            ("/second-factor", {"required": "no"}, "The university requires a passkey"),
        ],
    )
    async def test_conflict(
        self, world: World, path: str, fields: dict[str, str], text: str
    ) -> None:
        """A conflict is explained on the account page."""
        world.sign_in()
        for rpc in ("RemovePasskey", "SetSecondFactor"):
            world.auth.does.failures[rpc] = ConflictError("Not now.")
        page = await world.http.post(path, data=fields, headers=HTML)
        assert 409 == page.status_code
        assert text in page.text
