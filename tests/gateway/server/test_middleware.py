"""Common headers and limits of all responses."""

import gzip

import httpx
import pytest
from amarre.survey.v1 import survey_pb2
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from gateway.app import build
from gateway.pages.site import static_url
from gateway.server.middleware import RequestMiddleware
from mesh.chassis import call
from tests.gateway.conftest import ORIGIN, World
from tests.mesh.chassis.telemetry import recorded

PATHS = ("/", "/api/v1/me", "/api/v1/health/status", "/nothing", "/healthz", "/static/amarre.css")


def behind_envoy(world: World) -> httpx.AsyncClient:
    """Return a client of the same gateway running behind Envoy."""
    settings = world.settings.model_copy(update={"transport": "sidecar"})
    app = build(settings, world.gateway.api.clients).app
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url=ORIGIN,
        headers={"sec-fetch-site": "same-origin"},
    )


@pytest.mark.parametrize("path", PATHS)
async def test_headers(world: World, path: str) -> None:
    """Every response has ids and security headers, and is not cached unless allowed."""
    answer = await world.http.get(path)
    assert 32 == len(answer.headers["x-request-id"])
    assert answer.headers["traceresponse"].startswith("00-")
    assert "nosniff" == answer.headers["x-content-type-options"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "same-origin" == answer.headers["referrer-policy"]
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    kept = "no-cache" if path.startswith("/static") else "no-store"
    assert kept == answer.headers["cache-control"]
    assert "server" not in answer.headers


@pytest.mark.parametrize("path", ["/healthz", "/static/amarre.css", "/notice", "/api/v1/me"])
async def test_other_method(world: World, path: str) -> None:
    """A method that a path does not have is 405 in the envelope, everywhere."""
    answer = await world.http.post(path)
    assert (405, "GET, HEAD") == (answer.status_code, answer.headers["allow"])
    assert "method_not_allowed" == answer.json()["error"]["code"]


async def test_no_hsts_over_http(world: World) -> None:
    """Over plain HTTP there is no Strict-Transport-Security header."""
    answer = await world.http.get("http://localhost:3000/")
    assert "strict-transport-security" not in answer.headers


async def test_trace_goes_on(world: World) -> None:
    """A valid trace context from Envoy is continued; an invalid one is replaced."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    valid = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    async with behind_envoy(world) as http:
        assert trace in (await http.get("/healthz", headers=valid)).headers["traceresponse"]
        for broken in (f"00-{trace}", f"00-{'0' * 32}-b7ad6b7169203331-01", "x" * 55):
            answer = await http.get("/healthz", headers={"traceparent": broken})
            assert trace not in answer.headers["traceresponse"]
            assert 55 == len(answer.headers["traceresponse"])


async def test_client_decides_nothing(world: World) -> None:
    """Without Envoy, a client's traceparent and x-canary have no effect."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    given = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "x-canary": "1"}
    seen: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(call.to_canary.get())
        await PlainTextResponse("ok")(scope, receive, send)

    for trusted in (False, True):
        outer = RequestMiddleware(
            app,
            world.gateway.api.errors,
            behind_envoy=trusted,
            hsts_seconds=1,
            admission=world.gateway.admission,
        )
        transport = httpx.ASGITransport(outer)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            answer = await http.get("/", headers=given)
        assert trusted is (trace in answer.headers["traceresponse"])
    assert [False, True] == seen


async def test_first_span(world: World) -> None:
    """A span is a root unless Envoy sent a trace context; ``traceresponse`` names its trace."""
    brought = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with recorded() as spans:
        answer = await world.http.get("/notice")
        async with behind_envoy(world) as http:
            await http.get("/notice", headers={"traceparent": brought})

    first, second = spans.of("SERVER")
    context = first.get_span_context()
    assert first.parent is None
    assert context is not None
    assert f"{context.trace_id:032x}" == answer.headers["traceresponse"].split("-")[1]
    assert second.parent is not None
    assert 0xB7AD6B7169203331 == second.parent.span_id


async def test_route_of_span(world: World) -> None:
    """A span names the route, and never the path."""
    with recorded() as spans:
        await world.http.get("/static/app.css?secret=1")
        await world.http.get("/ada@example.org")

    found = [(span.name, span.attributes or {}) for span in spans.of("SERVER")]
    assert ["GET /static", "GET other"] == [name for name, _ in found]
    for name, attributes in found:
        route = name.removeprefix("GET ")
        assert (route, route) == (attributes["http.route"], attributes["url.template"])


async def test_request_id(world: World) -> None:
    """A request id is accepted only from Envoy and only when well-formed."""
    given = {"x-request-id": "abc-123-def"}
    assert "abc-123-def" != (await world.http.get("/", headers=given)).headers["x-request-id"]
    async with behind_envoy(world) as http:
        assert "abc-123-def" == (await http.get("/", headers=given)).headers["x-request-id"]
        for odd in ("a", "x" * 65, "<script>"):
            answer = await http.get("/", headers={"x-request-id": odd})
            assert odd != answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({"x-envoy-external-address": "192.0.2.7", "x-forwarded-for": "6.6.6.6"}, "192.0.2.7"),
        ({"x-forwarded-for": "6.6.6.6, 192.0.2.8"}, "192.0.2.8"),
        ({"x-amarre-client-address": "6.6.6.6"}, ""),
    ],
)
async def test_client_behind_envoy(world: World, headers: dict[str, str], address: str) -> None:
    """Behind Envoy the client address is the one Envoy determined."""
    async with behind_envoy(world) as http:
        body = {"userId": "aa", "secret": "bb"}
        await http.post("/api/v1/auth/login", json=body, headers=headers)
    assert address == world.auth.does.last("LogIn").client_address


async def test_compression(world: World) -> None:
    """Larger responses are compressed for clients that accept it."""
    world.sign_in()
    world.survey.listed = [survey_pb2.Request(id=str(n)) for n in range(100)]
    async with world.http.stream(
        "GET", "/api/v1/surveys/list", headers={"accept-encoding": "gzip"}
    ) as answer:
        raw = b"".join([part async for part in answer.aiter_raw()])
    assert "gzip" == answer.headers["content-encoding"]
    assert len(raw) < len(gzip.decompress(raw)) / 5


async def test_static_files_by_version(world: World) -> None:
    """A file requested by its current version is immutable; any other version is not cached."""
    answer = await world.http.get(static_url("amarre.css"))
    assert "immutable" in answer.headers["cache-control"]
    for other in ("/static/amarre.css?v=0123456789ab", "/static/amarre.css?v=", "/static/mark.svg"):
        answer = await world.http.get(other)
        assert 200 == answer.status_code
        assert "no-cache" == answer.headers["cache-control"]
    assert 404 == (await world.http.get("/static/none.css?v=1")).status_code
    assert 404 == (await world.http.get("/static/../site.py")).status_code
    assert 404 == (await world.http.get("/static/%2e%2e/site.py")).status_code
