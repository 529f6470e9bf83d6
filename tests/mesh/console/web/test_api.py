"""The API and its authorization."""

import asyncio
import itertools
import json
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from mesh.chassis.credentials.secret_files import SecretFileError
from mesh.chassis.testing import FakeClock, free_port
from mesh.console.app import ListenError
from mesh.console.store.schema import DatabaseError
from mesh.console.web.authentication import Access, read_token
from tests.mesh.console.conftest import TOKEN, Running, Start
from tests.mesh.console.telemetry import LIST, Batch, logs, now

ENDPOINTS = (
    *("overview", "graph", "traces", "logs", "metrics", "metrics/survey.ListRequests"),
    *("series", "mesh", "intake", "runs"),
)


class TestShapes:
    @pytest.mark.parametrize(
        "path", ["overview", "graph", "traces", "logs", "metrics", "series", "runs"]
    )
    async def test_lists(self, running: Running, path: str) -> None:
        """
        Every list has its items and the token of the next page.
        """
        answer = await running.get(path)

        assert isinstance(answer["items"], list)
        assert "" == answer["nextPageToken"]

    async def test_trace(self, running: Running) -> None:
        """
        A trace has spans with the fields in the design.
        """
        batch = Batch()
        trace = batch.call(proxies=True)
        await running.take("traces", batch.request)

        (summary,) = (await running.get("traces", rpc=LIST))["items"]
        whole = await running.get(f"traces/{trace.hex()}")

        assert trace.hex() == summary["traceId"] == whole["traceId"]
        named = {"traceId", "spanId", "parentSpanId", "service", "name", "kind", "proxy"}
        named |= {"start", "durationMs", "status", "attributes"}
        assert all(named <= span.keys() for span in whole["spans"])

    @pytest.mark.parametrize("rpc", ["survey.ListRequests", "ListRequests", LIST, f"/{LIST}"])
    async def test_names_of_rpcs(self, running: Running, rpc: str) -> None:
        """
        An rpc is found by each of its names.
        """
        batch = Batch()
        batch.call()
        await running.take("traces", batch.request)

        assert 1 == len((await running.get("traces", rpc=rpc))["items"])

    async def test_graph(self, running: Running) -> None:
        """
        An edge has the fields in the design.
        """
        edge = (await running.get("graph"))["items"][0]

        named = {"from", "to", "method", "declared", "observed", "rate", "errors"}
        assert named <= edge.keys()

    async def test_mesh(self, running: Running) -> None:
        """
        The mesh has the parts in the design.
        """
        found = await running.get("mesh")

        named = {"proxies", "certificates", "breakers", "ejections", "weights"}
        assert named <= found.keys()
        assert "survey.ListRequests" in {policy["rpc"] for policy in found["policies"]}

    async def test_logs(self, running: Running) -> None:
        """
        Logs are found by trace, service, level and text.
        """
        trace = b"t" * 16
        await running.take(
            "logs",
            logs(
                "auth",
                "signed in",
                trace=trace,
                rpc="auth.LogIn",
                kind="security",
                note='"amber" \\',
            ),
        )
        await running.take("logs", logs("survey", "100% wrong", level=17))

        async def messages(**wanted: str) -> list[str]:
            return [one["message"] for one in (await running.get("logs", **wanted))["items"]]

        assert ["100% wrong", "signed in"] == await messages()
        assert ["signed in"] == await messages(trace_id=trace.hex())
        assert ["signed in"] == await messages(service="auth")
        assert ["100% wrong"] == await messages(level="warning")
        assert [] == await messages(level="critical")
        assert ["100% wrong"] == await messages(q="0% WRONG")
        assert ["signed in"] == await messages(q="auth.login")
        assert ["signed in"] == await messages(kind="security")
        assert ["signed in"] == await messages(q='"amber" \\')
        assert [] == await messages(q="_", service="survey")
        assert [] == await messages(to="1969-12-31T23:59:59Z")
        assert [] == await messages(service="nobody")

    async def test_log_pages(self, running: Running) -> None:
        """
        All pages of logs together contain each record once.
        """
        await running.take("logs", logs("auth", *map(str, range(25)), at=0))
        shown, token = list[str](), ""
        while True:
            page = await running.get("logs", limit=7, page_token=token)
            shown += [item["message"] for item in page["items"]]
            token = page["nextPageToken"]
            if not token:
                break

        assert sorted(map(str, range(25))) == sorted(shown)


class TestFollow:
    async def test_logs(self, running: Running) -> None:
        """
        A live tail streams new items as NDJSON.
        """
        await running.take("logs", logs("auth", "old"))
        first = await self.first(running, "logs", "logs", logs("auth", "new"), service="auth")

        assert "new" == first["message"]

    @pytest.mark.parametrize("wanted", [{}, {"from": "-1h"}], ids=str)
    async def test_from(self, running: Running, wanted: dict[str, str]) -> None:
        """
        A live tail begins now, or with the first item after ``from``.
        """
        await running.take("logs", logs("auth", "old"))
        first = await self.first(running, "logs", "logs", logs("auth", "new"), **wanted)

        assert ("old" if wanted else "new") == first["message"]

    async def test_traces(self, running: Running) -> None:
        """
        Traces can be followed as well.
        """
        batch = Batch()
        trace = batch.call()
        first = await self.first(running, "traces", "traces", batch.request)

        assert trace.hex() == first["traceId"]
        (listed,) = (await running.get("traces"))["items"]
        assert listed.keys() == first.keys()

    async def first(
        self, running: Running, path: str, signal: str, request: Any, **wanted: str
    ) -> dict[str, Any]:
        """Follow, send while following, and return the first item."""
        parameters = {"follow": "true", **wanted}
        url = f"{running.url}/api/{path}"
        async with (
            asyncio.timeout(10),
            running.client.stream("GET", url, params=parameters) as stream,
        ):
            assert "application/x-ndjson" == stream.headers["content-type"]
            sent = False
            async for line in stream.aiter_lines():
                if not sent:
                    # The first, empty line says that the tail has begun.
                    sent = True
                    resources = request.resource_spans if signal == "traces" else ()
                    spans = [span for r in resources for s in r.scope_spans for span in s.spans]
                    since_made = now() - min((s.start_time_unix_nano for s in spans), default=0)
                    for span in spans:
                        span.start_time_unix_nano += since_made
                        span.end_time_unix_nano += since_made
                    await running.take(signal, request)
                if line:
                    found: dict[str, Any] = json.loads(line)
                    return found
        raise AssertionError("the stream ended")

    async def test_ends_with_the_console(self, start: Start) -> None:
        """
        A tail ends when the console stops, without delaying it.
        """
        lines = list[str]()
        async with asyncio.timeout(8):
            async with start() as running:
                stream = running.client.stream(
                    "GET", f"{running.url}/api/logs", params={"follow": "true"}
                )
                answer = await stream.__aenter__()
                running.context.stopping.set()
                lines = [line async for line in answer.aiter_lines()]
                await stream.__aexit__(None, None, None)

        assert [""] == lines


class TestRefused:
    async def test_absent(self, running: Running) -> None:
        """
        An unknown trace and an unknown endpoint are 404 in JSON.
        """
        for path in (f"traces/{'0' * 32}", "nothing"):
            answer = await running.client.get(f"{running.url}/api/{path}")
            assert (404, "not_found") == (answer.status_code, answer.json()["error"]["code"])

    async def test_strangers(self, running: Running) -> None:
        """
        Without the token, or with a wrong one, every endpoint is 401.
        """
        async with httpx.AsyncClient() as stranger:
            headers = ("", "Bearer wrong", TOKEN, f"Basic {TOKEN}")
            for path, header in itertools.product(ENDPOINTS, headers):
                answer = await stranger.get(
                    f"{running.url}/api/{path}", headers={"authorization": header}
                )
                assert (401, "unauthenticated") == (
                    answer.status_code,
                    answer.json()["error"]["code"],
                )

    async def test_pages_for_strangers(self, running: Running) -> None:
        """
        An unauthenticated page explains how to sign in, and shows nothing else.
        """
        async with httpx.AsyncClient() as stranger:
            answer = await stranger.get(f"{running.url}/traces")

        assert 401 == answer.status_code
        assert "one-time link" in answer.text


class TestLink:
    async def test_once(self, running: Running) -> None:
        """
        A one-time link signs a browser in once; its cookie then opens pages and API.
        """
        code = (await running.client.post(f"{running.url}/api/codes")).json()
        async with httpx.AsyncClient(base_url=running.url) as browser:
            opened = await browser.get(code["path"])
            cookie = opened.headers["set-cookie"].lower()
            page = await browser.get("/")
            api = await browser.get("/api/overview")
        async with httpx.AsyncClient(base_url=running.url) as another:
            again = await another.get(code["path"])

        assert [200, 200, 200, 401] == [answer.status_code for answer in (opened, page, api, again)]
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "script-src 'self'" in page.headers["content-security-policy"]

    async def test_no_links_by_cookie(self, running: Running) -> None:
        """
        A cookie does not create further links, and other sites cannot change anything with it.
        """
        code = (await running.client.post(f"{running.url}/api/codes")).json()
        async with httpx.AsyncClient(base_url=running.url) as browser:
            await browser.get(code["path"])
            own = {"sec-fetch-site": "same-origin"}
            assert 403 == (await browser.post("/api/codes", headers=own)).status_code
            assert 403 == (await browser.post("/sign-out")).status_code
            assert 200 == (await browser.post("/sign-out", headers=own)).status_code
            assert 401 == (await browser.get("/api/overview")).status_code

    def test_lifetimes(self) -> None:
        """
        A code is valid for 10 minutes, a session for 12 hours, neither with another token.
        """
        clock = FakeClock()

        def now() -> int:
            return int(clock.time() * 1e6)

        access = Access(TOKEN, now)
        late, good = access.new_code(), access.new_code()
        cookie = access.use_code(good)
        clock.advance(timedelta(minutes=10))
        assert "" == access.use_code(late)
        assert "operator" == access.session(cookie)
        assert not Access("another-token-altogether", now).session(cookie)
        assert not access.session(f"9{cookie}")
        assert not access.session("")
        clock.advance(timedelta(hours=12))
        assert not access.session(cookie)


class TestStart:
    def test_token_file(self, tmp_path: Path) -> None:
        """
        A missing token is created with private permissions; a short or shared one is rejected.
        """
        made = read_token("A_TOKEN", tmp_path / "new" / "token")
        assert made == read_token("A_TOKEN", tmp_path / "new" / "token")
        assert 0o600 == stat.S_IMODE((tmp_path / "new" / "token").stat().st_mode)
        (tmp_path / "short").touch(0o600)
        (tmp_path / "short").write_text("abc")
        with pytest.raises(SecretFileError, match=r"A_TOKEN.*at least 16"):
            read_token("A_TOKEN", tmp_path / "short")
        (tmp_path / "new" / "token").chmod(0o644)
        with pytest.raises(SecretFileError, match=r"A_TOKEN.*0644"):
            read_token("A_TOKEN", tmp_path / "new" / "token")

    @pytest.mark.parametrize("name", ["listen", "otlp_grpc", "otlp_http"])
    async def test_port_in_use(self, start: Start, name: str) -> None:
        """
        An address in use is one message with its variable, and leaves nothing behind.
        """
        taken = free_port()
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", taken)
        async with server:
            with pytest.raises(ListenError, match=f"AMARRE_CONSOLE_{name.upper()}"):
                async with start(**{f"console_{name}": f"127.0.0.1:{taken}"}):
                    pass

    async def test_no_database(self, start: Start, tmp_path: Path) -> None:
        """
        A file that cannot be created is one message with its variable.
        """
        with pytest.raises(DatabaseError, match="AMARRE_CONSOLE_DATABASE"):
            async with start(console_database=tmp_path / "token" / "x.sqlite"):
                pass
