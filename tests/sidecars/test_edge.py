"""The edge for browsers: limits, JSON errors, no forged headers."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from mesh.chassis.telemetry import names
from mesh.chassis.testing import free_port
from mesh.contract.wire import LOG_OUT_PATHS, SESSION_COOKIE
from mesh.render.envoy import Edge
from tests.sidecars.support.bed import Bed, RunningEnvoy, eventually
from tests.sidecars.support.running import Load

NAVIGATION = {"sec-fetch-mode": "navigate", "sec-fetch-site": "same-origin"}


@dataclass
class App:
    """A fake gateway that records what reaches it."""

    requests: list[dict[str, str]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.requests.append(dict(request.headers) | {"path": request.url.path})
        await (await self._answer(request))(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.url.path == "/api/v1/surveys/events":
            return StreamingResponse(_ticks(), media_type="text/event-stream")
        if request.url.path == "/crash":
            raise RuntimeError("told to crash")
        return JSONResponse({"data": len(await request.body()), "error": None})


async def _ticks() -> AsyncIterator[str]:
    yield "data: 1\n\n"
    await asyncio.sleep(0.3)
    yield "data: 2\n\n"


class _Server(uvicorn.Server):
    """A server that does not change the signal handlers of the test process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class Front:
    """A running edge."""

    envoy: RunningEnvoy
    edge: Edge
    app: App
    client: httpx.AsyncClient

    @property
    def port(self) -> int:
        return int(self.edge.http.rpartition(":")[2])

    async def raw(self, data: bytes, *, within: float = 5) -> bytes:
        """Send bytes verbatim; return everything received until the edge closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(within):
                with contextlib.suppress(ConnectionError):
                    return await reader.read()
            return b""
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def front(bed: Bed, *, rate_limits: bool = False) -> AsyncIterator[Front]:
    """Start an application on a Unix socket and the edge in front of it."""
    app, socket = App(), bed.folder / "app.sock"
    config = uvicorn.Config(app, uds=str(socket), log_config=None, lifespan="off", ws="none")
    server = _Server(config)
    serving = asyncio.create_task(server.serve())

    async def started() -> bool:
        return server.started

    await eventually(started, "the application")
    edge = Edge(
        http=f"127.0.0.1:{free_port()}",
        https=f"127.0.0.1:{free_port()}",
        tls_dir=str(bed.svids / "edge"),
        rate_limits=rate_limits,
    )
    envoy = await bed.caller(edge, app=f"unix:{socket}")
    async with httpx.AsyncClient(
        base_url=f"http://{edge.http}", trust_env=False, timeout=60
    ) as client:
        yield Front(envoy, edge, app, client)
    server.should_exit = True
    await serving


def assert_envelope(answer: httpx.Response, status: int, code: str) -> None:
    """Assert that *answer* is a complete error of ours."""
    assert status == answer.status_code
    assert "application/json" == answer.headers["content-type"].partition(";")[0]
    assert answer.json()["data"] is None
    assert code == answer.json()["error"]["code"]
    assert "nosniff" == answer.headers["x-content-type-options"]
    assert "no-store" == answer.headers["cache-control"]
    assert 1 == len(answer.headers.get_list("x-request-id"))
    assert answer.headers["x-request-id"]
    assert answer.headers["traceresponse"].startswith("00-")


def parsed(answer: bytes) -> tuple[int, dict[str, Any]]:
    """Return status and JSON body of a raw response."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


class TestForged:
    @pytest.mark.parametrize(
        "name",
        [
            "x-amarre-user",
            "x-amarre-anything",
            "x-envoy-retry-on",
            "x-envoy-upstream-rq-timeout-ms",
            "x-forwarded-client-cert",
            "authorization",
            "x-forwarded-host",
            "x-real-ip",
            "x-client-trace-id",
        ],
    )
    async def test_internal_headers_are_dropped(self, bed: Bed, name: str) -> None:
        """A header that only the mesh may set does not pass the edge."""
        async with front(bed) as edge:
            await edge.client.get("/", headers={name: "forged"})

        assert name not in edge.app.requests[0]

    async def test_address_and_id_are_the_edge_s(self, bed: Bed) -> None:
        """The client's address and the request id are those of the edge."""
        forged = {
            "x-forwarded-for": "9.9.9.9",
            "x-envoy-external-address": "9.9.9.9",
            "x-request-id": "forged-request-id",
            "x-forwarded-proto": "https",
        }
        async with front(bed) as edge:
            answer = await edge.client.get("/", headers=forged)

        seen = edge.app.requests[0]
        assert "127.0.0.1" == seen["x-envoy-external-address"]
        assert "9.9.9.9" not in "".join(seen.values())
        assert "forged-request-id" != seen["x-request-id"]
        assert answer.headers["x-request-id"] == seen["x-request-id"]
        assert "http" == seen["x-forwarded-proto"]


class TestLimits:
    async def test_body_up_to_the_limit(self, bed: Bed) -> None:
        """64 KiB are accepted."""
        async with front(bed) as edge:
            answer = await edge.client.post("/", content=b"x" * 65_536)

        assert 65_536 == answer.json()["data"]

    async def test_large_body(self, bed: Bed) -> None:
        """One byte more is 413 and does not reach the application."""
        async with front(bed) as edge:
            answer = await edge.client.post("/", content=b"x" * 65_537)

        assert_envelope(answer, 413, "payload_too_large")
        assert [] == edge.app.requests

    @pytest.mark.parametrize("path", LOG_OUT_PATHS)
    async def test_log_out_with_a_large_body(self, bed: Bed, path: str) -> None:
        """The gateway decides about the body of log-out, so that the session ends."""
        async with front(bed) as edge:
            await edge.client.post(path, content=b"x" * 65_537)

        assert [path] == [one["path"] for one in edge.app.requests]

    async def test_log_out_above_the_rate(self, bed: Bed) -> None:
        """A session above its rate can still be logged out."""
        cookie = {"cookie": f"__Host-amarre_session={'a' * 32}"}
        async with (
            front(bed, rate_limits=True) as edge,
            httpx.AsyncClient(base_url=edge.client.base_url, headers=cookie) as eager,
            Load(eager, "/", 200) as load,
        ):
            for _ in range(100):
                await asyncio.sleep(0.05)
                if load.answers["429"]:
                    break
            answer = await edge.client.post("/logout", headers=cookie)

        assert load.answers["429"]
        assert 200 == answer.status_code

    @pytest.mark.parametrize(
        ("path", "site", "closed"),
        [
            ("/logout?x=1", "same-origin", True),
            ("/api/v1/auth/logout", "same-origin", True),
            ("/logout", "cross-site", False),
            ("/logout-not", "same-origin", False),
            ("/", "same-origin", False),
        ],
    )
    async def test_refused_log_out(self, bed: Bed, path: str, site: str, *, closed: bool) -> None:
        """If the edge itself refuses a log-out of our pages, the browser forgets the session."""
        async with front(bed) as edge:
            answer = await edge.client.post(
                path,
                headers={"sec-fetch-site": site, "connection": "upgrade", "upgrade": "websocket"},
            )

        assert_envelope(answer, 403, "permission_denied")
        ended = [f"{SESSION_COOKIE}=; Max-Age=0; Path=/; HttpOnly; SameSite=Strict; Secure"]
        assert (ended if closed else []) == answer.headers.get_list("set-cookie")

    async def test_large_headers(self, bed: Bed) -> None:
        """Headers of more than 16 KiB are 431."""
        async with front(bed) as edge:
            answer = await edge.client.get("/", headers={"x-long": "x" * 20_000})

        assert 431 == answer.status_code
        assert "invalid_request" == answer.json()["error"]["code"]

    @pytest.mark.parametrize(
        "request_text",
        [
            pytest.param(b"NONSENSE\r\n\r\n", id="no HTTP"),
            pytest.param(
                b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n"
                b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                id="two lengths",
            ),
            pytest.param(b"GET / HTTP/1.1\r\nhost: x\r\nunder_score: 1\r\n\r\n", id="underscore"),
            pytest.param(b"GET /a%2fb HTTP/1.1\r\nhost: x\r\n\r\n", id="escaped slash"),
        ],
    )
    async def test_malformed(self, bed: Bed, request_text: bytes) -> None:
        """Malformed HTTP is 400 and does not reach the application."""
        text = request_text.replace(b"host: x\r\n", b"host: x\r\nconnection: close\r\n")
        async with front(bed) as edge:
            answer = await edge.raw(text)

        assert b" 400 " in answer.partition(b"\r\n")[0]
        assert [] == edge.app.requests

    @pytest.mark.parametrize(
        ("request_text", "status"),
        [
            pytest.param(b"GET / HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n", 400, id="no colon"),
            pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no host"),
            pytest.param(b"get / HTTP/1.1\r\nhost: x\r\n\r\n", 400, id="unknown method"),
            pytest.param(
                b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400, id="length"
            ),
            pytest.param(b"GET / HTTP/1.0\r\nhost: x\r\n\r\n", 426, id="HTTP/1.0"),
            pytest.param(
                b"GET /?%b HTTP/1.1\r\nhost: x\r\n\r\n" % (b"x" * 20_000), 431, id="long path"
            ),
            pytest.param(
                b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
                501,
                id="transfer coding",
            ),
            pytest.param(
                b"OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 404, id="asterisk"
            ),
        ],
    )
    async def test_unreadable(self, bed: Bed, request_text: bytes, status: int) -> None:
        """
        A request that Envoy cannot read gets the JSON envelope and a request id, too, but no trace
        id, since it has no trace.
        """
        async with front(bed) as edge:
            head, _, body = (await edge.raw(request_text)).partition(b"\r\n\r\n")

        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert re.search(rb"\r\nx-request-id: [\w.-]{8,64}\r\n", head)
        assert b"traceresponse" not in head
        code = "not_found" if status == 404 else "invalid_request"
        assert code == json.loads(body)["error"]["code"]

    @pytest.mark.parametrize(
        ("path", "body", "status"), [("/%00", b"", 400), ("/signup", b"x" * 65_537, 413)]
    )
    async def test_page(self, bed: Bed, path: str, body: bytes, status: int) -> None:
        """
        A navigation that the edge refuses gets a page in both languages.

        Source: Fetch Metadata Request Headers, section 2.2.
        """
        async with front(bed) as edge:
            answer = await edge.client.post(path, content=body, headers=NAVIGATION)

        assert status == answer.status_code
        assert "text/html; charset=utf-8" == answer.headers["content-type"]
        assert f"cannot be shown ({status})" in answer.text
        assert f"ne peut pas être affichée ({status})" in answer.text
        assert 1 == len(answer.headers.get_list("x-request-id"))
        assert "retry-after" not in answer.headers

    async def test_rate(self, bed: Bed) -> None:
        """
        Requests of one session above its limit are 429 with Retry-After, whatever address it
        claims; another session is not affected. ``rate_limited`` counts them, and lines of kind
        ``security`` log them.
        """
        session = "__Host-amarre_session="
        same = {"cookie": f"{session}{'a' * 32}"}
        async with (
            front(bed, rate_limits=True) as edge,
            httpx.AsyncClient(base_url=edge.client.base_url, headers=same) as eager,
        ):
            # Above the 50 of a session and below the 250 of an address, each second.
            async with Load(eager, "/", 200) as load:
                for number in range(250):
                    claimed = {"x-forwarded-for": f"10.0.0.{number}"}
                    refused = await edge.client.get("/", headers=same | claimed)
                    if refused.status_code == 429:
                        break
                other = await edge.client.get("/", headers={"cookie": f"{session}{'b' * 32}"})
            counted = await edge.envoy.admin.counters("http_local_rate_limit.rate_limited$")
            line = await edge.envoy.logged(lambda line: line["code"] == 429)

        assert_envelope(refused, 429, "rate_limited")
        assert 1 <= int(refused.headers["retry-after"])
        assert 200 == other.status_code
        assert load.answers["429"] + 1 == sum(counted.values())
        assert names.KIND_SECURITY == line["kind"]


class TestAnswers:
    @pytest.mark.parametrize("path", ["/", "/logout"])
    async def test_page_while_unavailable(self, bed: Bed, path: str) -> None:
        """If nothing listens behind the edge, a navigation gets a page; a log-out still counts."""
        edge = Edge(http=f"127.0.0.1:{free_port()}", rate_limits=False)
        await bed.caller(edge)
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(f"http://{edge.http}{path}", headers=NAVIGATION)

        assert (503, "1") == (answer.status_code, answer.headers["retry-after"])
        assert "cannot be shown (503)" in answer.text
        assert answer.headers["traceresponse"].startswith("00-")
        assert (path == "/logout") is ("set-cookie" in answer.headers)

    async def test_application_is_unavailable(self, bed: Bed) -> None:
        """
        If nothing listens behind the edge, the response is 503 as JSON, with Retry-After, and a
        line of kind ``error`` logs it.
        """
        edge = Edge(http=f"127.0.0.1:{free_port()}", rate_limits=False)
        envoy = await bed.caller(edge)

        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://{edge.http}/")

        assert_envelope(answer, 503, "unavailable")
        assert "1" == answer.headers["retry-after"]
        line = await envoy.logged(lambda line: line["code"] == 503)
        assert (names.KIND_ERROR, "error") == (line["kind"], line["level"])

    async def test_https(self, bed: Bed) -> None:
        """The same application responds over TLS, and sees the scheme https."""
        async with front(bed) as edge:
            context = httpx.create_ssl_context()
            context.load_verify_locations(cadata=bed.authority.pem().decode())
            port = edge.edge.https.rpartition(":")[2]
            async with httpx.AsyncClient(verify=context, trust_env=False) as client:
                answer = await client.get(f"https://localhost:{port}/")

        assert 200 == answer.status_code
        assert "https" == edge.app.requests[0]["x-forwarded-proto"]

    async def test_events_flow(self, bed: Bed) -> None:
        """Server-sent events arrive one by one."""
        async with (
            front(bed) as edge,
            edge.client.stream("GET", "/api/v1/surveys/events") as answer,
        ):
            chunks = [text async for text in answer.aiter_text()]

        assert ["data: 1\n\n", "data: 2\n\n"] == chunks

    async def test_what_people_type_is_not_logged(self, bed: Bed) -> None:
        """The access log contains paths of the contracts, without the query, and no others."""
        async with front(bed) as edge:
            await edge.client.get("/api/v1/me?secret=typed")
            known = await edge.envoy.logged(lambda line: line["path"] == "/api/v1/me")
            await edge.client.get("/api/v1/secret/typed?secret=typed")
            other = await edge.envoy.logged(lambda line: line["path"] == "other")

        assert "edge" == known["direction"] == other["direction"]
        assert names.KIND_ACCESS == known["kind"] == other["kind"]
        assert "typed" not in json.dumps([known, other])
