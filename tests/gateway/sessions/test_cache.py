"""Session cookie: use, cache and sign-out."""

import asyncio
from http.cookies import SimpleCookie

import pytest
from amarre.auth.v1 import auth_service_pb2 as pb

from gateway.app import build
from gateway.clients import Clients
from gateway.sessions import cache
from gateway.sessions.cache import STALE_SECONDS, SessionCache
from gateway.sessions.cookies import NAME
from mesh.chassis.errors import UnavailableError
from tests.gateway.conftest import World

LINK = {"userId": "aa", "secret": "bb"}


async def status_of_me(world: World) -> int:
    """Request the profile of the signed-in user."""
    return (await world.http.get("/api/v1/me")).status_code


class TestCookie:
    async def test_attributes(self, world: World) -> None:
        """The cookie is host-only and inaccessible to scripts and other sites."""
        answer = await world.http.post("/api/v1/auth/login", json=LINK)
        morsel = SimpleCookie(answer.headers["set-cookie"])[NAME]
        assert world.auth.next_secret == morsel.value
        assert ("/", "", True, True, "strict") == (
            morsel["path"],
            morsel["domain"],
            morsel["secure"],
            morsel["httponly"],
            morsel["samesite"].lower(),
        )
        assert morsel["expires"]

    async def test_preset_cookie_is_replaced(self, world: World) -> None:
        """A session planted before log-in is replaced (session fixation)."""
        preset = world.sign_in("mallory")
        answer = await world.http.post("/api/v1/auth/login", json=LINK)
        assert preset not in answer.headers["set-cookie"]
        assert f"{NAME}={world.auth.next_secret};" in answer.headers["set-cookie"]

    @pytest.mark.parametrize("page", [False, True])
    async def test_session_before_ends(self, world: World, page: bool) -> None:
        """Opening a session ends the previous session of this browser."""
        world.sign_in("mallory")
        other = world.auth.open("mallory")
        if page:
            await world.http.post("/login", data=LINK)
        else:
            await world.http.post("/api/v1/auth/login", json=LINK)
        assert {other, world.auth.next_secret} == set(world.auth.sessions)

    async def test_auth_away_for_the_session_before(self, world: World) -> None:
        """A failure to end the previous session does not prevent sign-in."""
        world.sign_in()
        world.auth.does.failures["LogOut"] = UnavailableError("Unavailable.")
        answer = await world.http.post("/api/v1/auth/login", json=LINK)
        assert 200 == answer.status_code
        assert f"{NAME}={world.auth.next_secret};" in answer.headers["set-cookie"]

    @pytest.mark.parametrize(
        "cookie",
        [
            "amarre_session={0}",
            "__Host-amarre_sessions={0}",
            "{1}={0}; {1}=other-secret-of-somebody",
            '{1}="{0}"',
            "{1}=",
            "{1}=short",
        ],
    )
    async def test_not_a_cookie(self, world: World, cookie: str) -> None:
        """A wrong name, two values or a malformed value is not a session; Auth is not called."""
        secret = world.sign_in()
        world.http.headers["cookie"] = cookie.format(secret, NAME)
        assert 401 == await status_of_me(world)
        assert 0 == world.auth.does.count("VerifySession")

    async def test_cookie_stays_here(self, world: World) -> None:
        """No service but Auth's VerifySession ever sees the session secret."""
        secret = world.sign_in()
        await world.http.get("/api/v1/surveys/list", headers={"Last-Event-ID": "1"})
        seen = [str(r) for rs in world.survey.does.requests.values() for r in rs]
        assert seen
        assert not any(secret in request for request in seen)


class TestVerification:
    async def test_remembered(self, world: World) -> None:
        """A verified session is cached per service."""
        world.sign_in()
        for _ in range(3):
            assert 200 == await status_of_me(world)
            assert 200 == (await world.http.get("/api/v1/surveys/list")).status_code
        asked = [r.audience for r in world.auth.does.requests["VerifySession"]]
        assert ["auth", "survey"] == asked

    async def test_not_for_long(self, world: World) -> None:
        """A session is verified again after 5 s at most, so log-out elsewhere takes effect."""
        now = 1_000_000_000.0
        sessions = SessionCache(world.gateway.api.clients.stubs["auth"], now=lambda: now)
        secret = world.auth.open()
        await sessions.verify(secret, "auth")
        now += STALE_SECONDS - 0.1
        await sessions.verify(secret, "auth")
        assert 1 == world.auth.does.count("VerifySession")
        now += 0.2
        await sessions.verify(secret, "auth")
        assert 2 == world.auth.does.count("VerifySession")

    async def test_not_past_token(self, world: World) -> None:
        """A token close to its expiry is not used for a new call."""
        secret = world.auth.open()
        request = pb.VerifySessionRequest(session_secret=secret, audience="auth")
        answer = await world.gateway.api.clients.stubs["auth"].VerifySession(request)
        now = answer.token_expire_time.seconds - 4.0
        sessions = SessionCache(world.gateway.api.clients.stubs["auth"], now=lambda: now)
        await sessions.verify(secret, "auth")
        await sessions.verify(secret, "auth")
        assert 3 == world.auth.does.count("VerifySession")


class TestLogOut:
    async def test_at_once(self, world: World) -> None:
        """A session that ended here is invalid at once, for every service."""
        world.sign_in()
        assert 200 == await status_of_me(world)
        assert 200 == (await world.http.get("/api/v1/surveys/list")).status_code
        answer = await world.http.post("/api/v1/auth/logout")
        assert {"loggedOut": True} == answer.json()["data"]
        assert f'{NAME}=""' in answer.headers["set-cookie"]
        assert 401 == await status_of_me(world)
        assert 401 == (await world.http.get("/api/v1/surveys/list")).status_code

    async def test_everywhere(self, world: World) -> None:
        """Log-out everywhere removes the user's other sessions from the cache."""
        other = world.sign_in()
        assert 200 == await status_of_me(world)
        world.sign_in()
        await world.http.post("/api/v1/auth/logout", json={"everywhere": True})
        world.http.headers["cookie"] = f"{NAME}={other}"
        assert 401 == await status_of_me(world)

    async def test_only_here(self, world: World) -> None:
        """Log-out does not affect other devices."""
        other = world.sign_in()
        world.sign_in()
        await world.http.post("/api/v1/auth/logout")
        world.http.headers["cookie"] = f"{NAME}={other}"
        assert 200 == await status_of_me(world)

    async def test_another_device(self, world: World) -> None:
        """
        A session ended from another device is invalid here at once, and the cookie of the
        requesting device stays.
        """
        lost = world.sign_in()
        assert 200 == await status_of_me(world)
        mine = world.sign_in()
        answer = await world.http.post("/api/v1/auth/sessions/end", json={"id": "s0"})
        assert {"ended": True} == answer.json()["data"]
        assert "set-cookie" not in answer.headers
        world.http.headers["cookie"] = f"{NAME}={lost}"
        assert 401 == await status_of_me(world)
        world.http.headers["cookie"] = f"{NAME}={mine}"
        assert 200 == await status_of_me(world)

    @pytest.mark.parametrize("id_", ["", "..", "a/b", "%2e%2e", "x" * 65])
    async def test_impossible_id(self, world: World, id_: str) -> None:
        """A malformed session id is rejected; Auth is not called."""
        world.sign_in()
        answer = await world.http.post("/api/v1/auth/sessions/end", json={"id": id_})
        assert (400, "invalid_request") == (answer.status_code, answer.json()["error"]["code"])
        assert 0 == world.auth.does.count("EndSession")

    @pytest.mark.parametrize("method", ["VerifySession", "LogOut"])
    async def test_auth_unavailable(self, world: World, method: str) -> None:
        """The browser's session is cleared even when Auth cannot end it, and the page says so."""
        world.sign_in()
        world.auth.does.failures[method] = UnavailableError("Auth is unavailable.")
        answer = await world.http.post("/api/v1/auth/logout")
        assert 503 == answer.status_code
        assert f'{NAME}=""' in answer.headers["set-cookie"]

    @pytest.mark.parametrize("method", ["VerifySession", "LogOut"])
    async def test_ends_when_auth_is_back(
        self, world: World, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        """A session that Auth could not end at log-out ends as soon as Auth is back."""
        monkeypatch.setattr(cache, "END_PAUSES", (0.05,) * 100)
        world.sign_in()
        world.auth.does.failures[method] = UnavailableError("Auth is unavailable.")
        await world.http.post("/api/v1/auth/logout")
        await asyncio.sleep(0.2)
        tried = world.auth.does.count(method)
        assert world.auth.sessions

        world.auth.does.failures.clear()
        async with asyncio.timeout(10):
            while world.auth.sessions:
                await asyncio.sleep(0.01)

        assert tried > 1

    async def test_endings_are_limited(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """While Auth is unavailable, the number of sessions still to be ended is limited."""
        monkeypatch.setattr(cache, "MOST_ENDING", 3)
        world.auth.does.failures["VerifySession"] = UnavailableError("Auth is unavailable.")
        before = len(asyncio.all_tasks())
        for number in range(9):
            world.gateway.api.sessions.end_later(f"secret {number}")

        assert 3 == len(asyncio.all_tasks()) - before

    async def test_ended_already(self, world: World) -> None:
        """Log-out of an ended session clears the cookie."""
        world.sign_in()
        world.auth.sessions.clear()
        answer = await world.http.post("/api/v1/auth/logout")
        assert 401 == answer.status_code
        assert f'{NAME}=""' in answer.headers["set-cookie"]

    async def test_answer_on_its_way(self, world: World) -> None:
        """A verification in flight at log-out is not cached."""
        sessions = world.gateway.api.sessions
        secret = world.sign_in()
        task = asyncio.ensure_future(sessions.verify(secret, "auth"))
        await asyncio.sleep(0)  # Lets it begin.
        sessions.forget(secret)
        await task
        world.auth.sessions.clear()
        assert 401 == await status_of_me(world)


async def test_second_gateway(world: World) -> None:
    """Another gateway accepts an ended session for at most 5 s."""
    clients = Clients.connect(world.settings)
    try:
        now = 0.0
        elsewhere = build(world.settings, clients).api.sessions
        elsewhere._now = lambda: now  # the clock of that gateway
        secret = world.sign_in()
        await elsewhere.verify(secret, "auth")
        await world.http.post("/api/v1/auth/logout")
        await elsewhere.verify(secret, "auth")
        now = STALE_SECONDS
        with pytest.raises(Exception, match="ended"):
            await elsewhere.verify(secret, "auth")
    finally:
        await clients.close()
