"""The Appwrite adapter: error mapping, and no retries of writes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from auth_svc.errors import InvalidCredentialsError, InvalidEmailError
from auth_svc.providers.appwrite import AppwriteDirectory
from auth_svc.providers.appwrite_client import SEGMENTS, AppwriteClient, AppwriteProject
from auth_svc.storage.database import Database
from auth_svc.storage.session_uses import SqlSessionUses
from mesh.chassis.errors import MeshError, RateLimitedError, UnavailableError, UpstreamError
from mesh.chassis.server import StartError
from mesh.chassis.testing import FakeClock
from sandbox.appwrite.app import SCOPES, create
from tests.auth_svc.harness import APPWRITE_KEY, LIFE, LINK_URL, PROJECT, AppwriteHarness

Use = Callable[[AppwriteDirectory], Awaitable[object]]

USES: dict[str, Use] = {
    "invite": lambda d: d.invite("ada@example.org", new_id="ab", language=""),
    "open_session": lambda d: d.open_session("ab", "cd", user_agent=""),
    "open_session_of": lambda d: d.open_session_of("ab", user_agent=""),
    "find_session": lambda d: d.find_session("eyJ9"),
    "sessions": lambda d: d.sessions("ab"),
    "end_session": lambda d: d.end_session("ab", "cd"),
    "end_sessions": lambda d: d.end_sessions("ab"),
}


@pytest.fixture
async def local_database(tmp_path: Path) -> AsyncIterator[Database]:
    async with aclosing(Database(f"sqlite+aiosqlite:///{tmp_path / 'auth.sqlite'}")) as fresh:
        await fresh.migrate()
        yield fresh


@pytest.fixture
async def harness(local_database: Database, clock: FakeClock) -> AsyncIterator[AppwriteHarness]:
    """Auth with the Appwrite sandbox."""
    transport = httpx.ASGITransport(create(PROJECT, APPWRITE_KEY))
    async with httpx.AsyncClient(transport=transport) as http:
        yield AppwriteHarness.over(local_database, clock, http)


class Answering:
    """A fake Appwrite with a list of responses, which records its requests."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """Return the next response; repeat the last one."""
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def over(answering: Answering, database: Database, clock: FakeClock) -> AppwriteDirectory:
    http = httpx.AsyncClient(transport=httpx.MockTransport(answering))
    project = AppwriteProject("http://appwrite/v1", PROJECT, APPWRITE_KEY)
    client = AppwriteClient(http, project, clock)
    return AppwriteDirectory(
        client, SqlSessionUses(database, LIFE), clock, life=LIFE, link_url=LINK_URL
    )


def refusal(status: int, kind: str, **headers: str) -> httpx.Response:
    body = {"message": "no", "code": status, "type": kind, "version": "1.9.6"}
    return httpx.Response(status, json=body, headers=headers)


HTML = {"content-type": "text/html"}
FAULTS: dict[str, tuple[httpx.Response | Exception, type[MeshError]]] = {
    "cannot connect": (httpx.ConnectError("refused"), UnavailableError),
    "times out": (httpx.ReadTimeout("slow"), UnavailableError),
    "closes the connection": (httpx.RemoteProtocolError("closed"), UnavailableError),
    "fails": (refusal(500, "general_unknown"), UnavailableError),
    "has no mail": (refusal(503, "general_smtp_disabled"), UnavailableError),
    "has the method off": (refusal(501, "user_auth_method_unsupported"), UnavailableError),
    "is behind a broken proxy": (httpx.Response(502, text="<h1>", headers=HTML), UnavailableError),
    "limits us": (refusal(429, "general_rate_limit_exceeded"), RateLimitedError),
    "answers a page": (httpx.Response(200, text="<h1>", headers=HTML), UpstreamError),
    "answers a list": (httpx.Response(200, json=[]), UpstreamError),
    "forbids with a page": (httpx.Response(403, text="<h1>", headers=HTML), UpstreamError),
    "refuses strangely": (refusal(400, "general_query_invalid"), UpstreamError),
}


@pytest.mark.parametrize("use", USES)
async def test_path_segments(local_database: Database, clock: FakeClock, use: str) -> None:
    """
    In the templates of all paths, exactly the ids are replaced.
    """
    answering = Answering(refusal(404, "user_not_found"))
    with suppress(MeshError):
        await USES[use](over(answering, local_database, clock))

    found = {one for request in answering.asked for one in request.url.path.split("/")}
    assert found - SEGMENTS - {"", "v1"} <= {"ab", "cd"}
    assert not SEGMENTS & {"", "v1", "ab", "cd"}


class TestFaults:
    @pytest.mark.parametrize("use", USES)
    @pytest.mark.parametrize("fault", FAULTS)
    async def test_told_apart(
        self, local_database: Database, clock: FakeClock, fault: str, use: str
    ) -> None:
        """
        An outage is 503, a rate limit 429, an invalid response 502; none of them is "signed out".
        """
        answer, expected = FAULTS[fault]
        directory = over(Answering(answer), local_database, clock)

        with pytest.raises(expected):
            await USES[use](directory)

    @pytest.mark.parametrize("use", ["invite", "open_session", "open_session_of", "end_session"])
    @pytest.mark.parametrize("fault", ["cannot connect", "is behind a broken proxy", "fails"])
    async def test_what_writes_is_sent_once(
        self, local_database: Database, clock: FakeClock, fault: str, use: str
    ) -> None:
        """A call that may have consumed a link or sent a mail is not retried."""
        answering = Answering(FAULTS[fault][0])

        with pytest.raises(UnavailableError):
            await USES[use](over(answering, local_database, clock))
        assert 1 == len(answering.asked)

    @pytest.mark.parametrize("fault", ["cannot connect", "is behind a broken proxy", "fails"])
    async def test_unknown_sessions_are_not_ended(
        self, local_database: Database, clock: FakeClock, fault: str
    ) -> None:
        """Sessions that cannot be listed for revocation are not ended either."""
        answering = Answering(FAULTS[fault][0])

        with pytest.raises(UnavailableError):
            await USES["end_sessions"](over(answering, local_database, clock))
        assert {"GET"} == {request.method for request in answering.asked}

    @pytest.mark.parametrize("fault", ["cannot connect", "is behind a broken proxy"])
    async def test_reads_are_tried_twice(
        self, local_database: Database, clock: FakeClock, fault: str
    ) -> None:
        """A read is retried once, and the second response counts."""
        empty = httpx.Response(200, json={"total": 0, "sessions": []})
        answering = Answering(FAULTS[fault][0], empty)

        assert [] == await over(answering, local_database, clock).sessions("ab")
        assert 2 == len(answering.asked)

    async def test_limit_says_when(self, local_database: Database, clock: FakeClock) -> None:
        """Appwrite's reset time becomes our Retry-After."""
        reset = str(int(clock.time()) + 90)
        limited = refusal(429, "general_rate_limit_exceeded", **{"x-ratelimit-reset": reset})

        with pytest.raises(RateLimitedError) as ei:
            await USES["invite"](over(Answering(limited), local_database, clock))
        assert timedelta(seconds=90) == ei.value.retry_after

    @pytest.mark.parametrize(
        ("use", "kind", "status", "expected"),
        [
            ("open_session", "user_invalid_token", 401, InvalidCredentialsError),
            ("open_session", "user_blocked", 403, InvalidCredentialsError),
            ("open_session_of", "user_not_found", 404, InvalidCredentialsError),
            ("invite", "general_argument_invalid", 400, InvalidEmailError),
        ],
    )
    async def test_refusals(
        self,
        local_database: Database,
        clock: FakeClock,
        use: str,
        kind: str,
        status: int,
        expected: type[MeshError],
    ) -> None:
        """Errors that concern the user are passed on as such."""
        directory = over(Answering(refusal(status, kind)), local_database, clock)

        with pytest.raises(expected):
            await USES[use](directory)

    @pytest.mark.parametrize(
        "body", [{}, {"$id": "a"}, {"$id": "a", "$createdAt": "x", "expire": "y"}]
    )
    async def test_answers_that_lack_something(
        self, local_database: Database, clock: FakeClock, body: dict[str, Any]
    ) -> None:
        """An incomplete response is an upstream error, not a crash."""
        for use in ("invite", "open_session", "open_session_of", "find_session"):
            with pytest.raises(UpstreamError):
                await USES[use](
                    over(Answering(httpx.Response(200, json=body)), local_database, clock)
                )


class TestCredentials:
    async def test_key_and_session_never_together(
        self, local_database: Database, clock: FakeClock
    ) -> None:
        """A call has the key or a session, never both."""
        answering = Answering(refusal(401, "general_unauthorized_scope"))
        directory = over(answering, local_database, clock)

        assert await directory.find_session("eyJ9") is None
        with pytest.raises(UpstreamError):
            await directory.sessions("ab")

        for request in answering.asked:
            named = {"x-appwrite-key", "x-appwrite-session"} & set(request.headers)
            assert 1 == len(named)

    async def test_cookies_are_not_kept(self, local_database: Database, clock: FakeClock) -> None:
        """The session cookie that Appwrite sets is never sent with another call."""
        cookie = {"set-cookie": "a_session_amarre=of-ada; Path=/"}
        answering = Answering(
            httpx.Response(200, json={"total": 0, "sessions": []}, headers=cookie)
        )
        directory = over(answering, local_database, clock)

        for _ in range(2):
            await directory.sessions("ab")

        assert all("cookie" not in request.headers for request in answering.asked)

    async def test_nothing_secret_is_logged(
        self, harness: AppwriteHarness, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """No address, key, link or session is logged, in success or failure."""
        link = await harness.link("canary@example.org")
        secret = await harness.use(link)
        await harness.directory.find_session(secret)
        for mode in ("500", "503", "html"):
            await harness.switch(mode=mode)
            with pytest.raises(UnavailableError):
                await harness.link("canary@example.org")
            with pytest.raises(UnavailableError):
                await harness.directory.find_session(secret)

        written = "".join(capsys.readouterr())
        assert "appwrite failed" in written
        for hidden in ("canary", APPWRITE_KEY, link.secret, secret):
            assert hidden not in written


class TestOutage:
    async def test_link_survives(self, harness: AppwriteHarness) -> None:
        """A link that was tried during an outage works afterwards."""
        link = await harness.link()
        await harness.switch(mode="503")
        with pytest.raises(UnavailableError):
            await harness.use(link)
        await harness.switch(mode="none")

        await harness.use(link)

    async def test_blocked_user_learns_nothing(self, harness: AppwriteHarness) -> None:
        """A blocked user who requests a link gets the usual response, and no link."""
        link = await harness.link()
        secret = await harness.use(link)
        await harness.http.patch(
            f"http://appwrite/v1/users/{link.user_id}/status",
            json={"status": False},
            headers={"x-appwrite-project": PROJECT, "x-appwrite-key": APPWRITE_KEY},
        )

        await harness.sign_in.sign_up("ada@example.org", client="", language="")
        assert await harness.directory.find_session(secret) is None
        assert link == await harness.mailed()


class TestStart:
    async def directory(
        self, database: Database, clock: FakeClock, *, key: str, project: str, scopes: Any
    ) -> AppwriteDirectory:
        http = httpx.AsyncClient(
            transport=httpx.ASGITransport(create(PROJECT, APPWRITE_KEY, scopes=scopes))
        )
        client = AppwriteClient(http, AppwriteProject("http://appwrite/v1", project, key), clock)
        return AppwriteDirectory(
            client, SqlSessionUses(database, LIFE), clock, life=LIFE, link_url=LINK_URL
        )

    @pytest.mark.parametrize("missing", SCOPES)
    async def test_missing_scope(
        self, local_database: Database, clock: FakeClock, missing: str
    ) -> None:
        """A key without a required scope stops the start with only that scope's name."""
        scopes = tuple(scope for scope in SCOPES if scope != missing)
        directory = await self.directory(
            local_database, clock, key=APPWRITE_KEY, project=PROJECT, scopes=scopes
        )

        with pytest.raises(StartError, match=f"lacks {missing}:"):
            await directory.check()

    @pytest.mark.parametrize(
        ("key", "project", "named"),
        [("wrong", PROJECT, "KEY_FILE"), (APPWRITE_KEY, "other", "PROJECT")],
        ids=["wrong key", "wrong project"],
    )
    async def test_wrong(
        self, local_database: Database, clock: FakeClock, key: str, project: str, named: str
    ) -> None:
        """A wrong key or project stops the start with the name of the setting."""
        directory = await self.directory(
            local_database, clock, key=key, project=project, scopes=SCOPES
        )

        with pytest.raises(StartError, match=named):
            await directory.check()

    async def test_good(self, harness: AppwriteHarness) -> None:
        """A valid key starts, and an unavailable Appwrite does not prevent the start."""
        assert isinstance(harness.directory, AppwriteDirectory)
        await harness.directory.check()
        await harness.switch(mode="503")
        await harness.directory.check()
