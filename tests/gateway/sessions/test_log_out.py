"""Log-out: ends the session whatever else is wrong with the request."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.sessions import cache, log_out
from gateway.sessions.cookies import MOST_READ, NAME
from tests.gateway.conftest import World

KIND = {
    "/logout": {"content-type": "application/x-www-form-urlencoded"},
    "/api/v1/auth/logout": {"content-type": "application/json"},
}


UNREADABLE = [
    pytest.param({"params": {"x": "1"}}, id="query"),
    pytest.param({"content": b"bye", "headers": {"content-type": "text/plain"}}, id="text"),
    pytest.param({"content": b"{", "headers": {"content-type": "application/json"}}, id="bad"),
    pytest.param({"json": {"everywhere": "yes"}}, id="wrong type"),
    pytest.param({"json": {"unknown": 1}}, id="unknown field"),
    pytest.param({"content": b"x", "headers": {"content-encoding": "gzip"}}, id="content coding"),
]
"""Options of requests that may ask for anything."""
EMPTY = [
    pytest.param({"headers": {"content-type": kind}}, id=f"empty {kind}")
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded")
]


@pytest.mark.parametrize("request_options", UNREADABLE + EMPTY)
@pytest.mark.parametrize("path", ["/api/v1/auth/logout", "/logout"])
async def test_log_out_always_ends(
    world: World, path: str, request_options: dict[str, Any]
) -> None:
    """Log-out ends the session, even if the request is otherwise invalid."""
    world.sign_in()
    answer = await world.http.post(path, **request_options)
    assert 200 == answer.status_code
    assert not world.auth.sessions
    assert f'{NAME}=""' in answer.headers["set-cookie"]


@pytest.mark.parametrize("request_options", UNREADABLE)
@pytest.mark.parametrize("path", ["/api/v1/auth/logout", "/logout"])
async def test_unreadable_request_ends_all(
    world: World, path: str, request_options: dict[str, Any]
) -> None:
    """A request that cannot be read may ask to end all sessions: they end."""
    world.sign_in()
    world.auth.open("ada")
    await world.http.post(path, **request_options)
    assert not world.auth.sessions


@pytest.mark.parametrize("request_options", EMPTY)
@pytest.mark.parametrize("path", ["/api/v1/auth/logout", "/logout"])
async def test_empty_request_ends_one(
    world: World, path: str, request_options: dict[str, Any]
) -> None:
    """A request without body and query asks for nothing: the sessions of other devices stay."""
    world.sign_in()
    other = world.auth.open("ada")
    await world.http.post(path, **request_options)
    assert {other} == set(world.auth.sessions)


@pytest.mark.parametrize(
    ("fields", "ends"),
    [({"everywhere": "yes"}, True), ({"everywhere": "true"}, True), ({"everywhere": "no"}, False)],
)
async def test_form_of_log_out(world: World, fields: dict[str, str], *, ends: bool) -> None:
    """Every value but `no` and none ends all sessions, and the page says so."""
    world.sign_in()
    world.auth.open("ada")
    page = await world.http.post("/logout", data=fields, headers={"accept-language": "en"})
    assert ends is (not world.auth.sessions)
    assert ends is ("on all your devices" in page.text)


class TestOddRequests:
    """Log-out ends the session although the request is cut off, too large or ambiguous.

    Source:
        OWASP ASVS 7.4.1: a session cannot be used after log-out.
    """

    @pytest.fixture(params=["/api/v1/auth/logout", "/logout"])
    def path(self, request: pytest.FixtureRequest) -> str:
        """The path of log-out, of the API and of the page."""
        return str(request.param)

    @pytest.mark.parametrize(
        "cookies",
        [
            pytest.param("{1}={0}; {1}=another-secret-of-somebody", id="stale second"),
            pytest.param("{1}=another-secret-of-somebody; {1}={0}", id="stale first"),
            pytest.param("{1}=; {1}={0}; {1}=x", id="malformed"),
            pytest.param("{1}={0}; {1}={0}", id="twice the same"),
        ],
    )
    async def test_several_cookies(self, world: World, path: str, cookies: str) -> None:
        """The session of each session cookie ends."""
        secret = world.sign_in()
        world.http.headers["cookie"] = cookies.format(secret, NAME)
        answer = await world.http.post(path)
        assert 200 == answer.status_code
        assert not world.auth.sessions
        assert f'{NAME}=""' in answer.headers["set-cookie"]

    async def test_two_sessions(self, world: World, path: str) -> None:
        """If both are sessions, both end."""
        one, other = world.auth.open("ada"), world.auth.open("bob", "bob")
        world.http.headers["cookie"] = f"{NAME}={one}; {NAME}={other}"
        assert 200 == (await world.http.post(path)).status_code
        assert not world.auth.sessions

    async def test_cookies_are_limited(self, world: World, path: str) -> None:
        """One request does not make Auth verify hundreds of secrets."""
        many = "; ".join(f"{NAME}=secret-number-{number:06}" for number in range(300))
        world.http.headers["cookie"] = many
        await world.http.post(path)
        assert MOST_READ == world.auth.does.count("VerifySession")

    @pytest.mark.parametrize("declared", [True, False])
    async def test_large_body(self, world: World, path: str, *, declared: bool) -> None:
        """A body above the limit, with or without a declared length."""
        world.sign_in()
        body: bytes | AsyncIterator[bytes] = b"x" * 200_000 if declared else _pieces(200_000)
        answer = await world.http.post(path, content=body)
        assert 200 == answer.status_code
        assert not world.auth.sessions

    @pytest.mark.parametrize("hangs_up", [True, False])
    async def test_incomplete_body(self, world: World, path: str, *, hangs_up: bool) -> None:
        """A client that hangs up, or does not send the body that it announced."""
        secret = world.sign_in()
        headers = {"cookie": f"{NAME}={secret}", "sec-fetch-site": "same-origin"}
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "scheme": "http",
            "query_string": b"",
            "headers": [(k.encode(), v.encode()) for k, v in (headers | KIND[path]).items()],
        }
        first = {"type": "http.request", "body": b"e", "more_body": True}
        received = iter([first, {"type": "http.disconnect"}][: 2 if hangs_up else 1])

        async def receive() -> Any:
            with contextlib.suppress(StopIteration):
                return next(received)
            return await asyncio.Event().wait()

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await world.gateway.app(scope, receive, send)
        assert not world.auth.sessions
        assert 200 == sent[0]["status"]

    async def test_auth_does_not_respond(
        self, world: World, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Log-out does not wait longer than its deadline, and the session ends later."""
        monkeypatch.setattr(log_out, "DEADLINE_SECONDS", 0.2)
        monkeypatch.setattr(cache, "END_PAUSES", (0.05,) * 100)
        world.sign_in()
        world.auth.does.delay_seconds = 0.5
        assert 503 == (await world.http.post(path)).status_code
        world.auth.does.delay_seconds = 0
        async with asyncio.timeout(10):
            while world.auth.sessions:
                await asyncio.sleep(0.01)

    async def test_other_sites_cannot(self, world: World, path: str) -> None:
        """Log-out from another site is refused, however many cookies it has."""
        secret = world.sign_in()
        world.http.headers["cookie"] = f"{NAME}={secret}; {NAME}=another-secret-of-somebody"
        answer = await world.http.post(path, headers={"sec-fetch-site": "cross-site"})
        assert 403 == answer.status_code
        assert world.auth.sessions
        assert "set-cookie" not in answer.headers


async def _pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(0, size, 10_000):
        yield b"x" * 10_000


async def test_log_out_everywhere_is_read(world: World) -> None:
    """A valid body of log-out is still read."""
    world.sign_in()
    other = world.auth.open("ada")
    assert 200 == (await world.http.post("/api/v1/auth/logout", json={})).status_code
    assert {other} == set(world.auth.sessions)
    world.http.headers["cookie"] = f"{NAME}={other}"
    world.auth.open("ada")
    await world.http.post("/api/v1/auth/logout", json={"everywhere": True})
    assert not world.auth.sessions
