"""Limits: concurrency, queueing, event streams. Rejections are early and include a retry delay."""

import asyncio
import re
import time
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from auth_svc.config import AuthSettings
from gateway.app import build
from gateway.config import GatewaySettings
from gateway.error_responses import ErrorResponses
from gateway.pages.site import Site
from gateway.rest import binding
from gateway.server import admission
from gateway.server.admission import Admission, age_seconds
from gateway.server.limits import StreamLimits, client_network
from gateway.server.middleware import RequestMiddleware
from health_svc.config import HealthSettings
from mesh.chassis.errors import RateLimitedError, UnavailableError
from mesh.contract import policy
from survey_svc.config import SurveySettings
from tests.gateway.conftest import World
from tests.gateway.rest.test_streams import eventually, listening


def limiter(most: int = 100, least: int = 16, target: float = 0.05) -> Admission:
    return Admission(target_seconds=target, oldest_seconds=1, least=least, most=most)


class TestAdmission:
    def test_follows_delay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The limit shrinks while requests queue, never below its minimum, and recovers."""
        now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        limit = limiter()
        for _ in range(50):
            now += 0.11
            limit.admit(0.2).release()
        assert 16 == limit.limit
        for _ in range(200):
            now += 0.11
            limit.admit(0.0).release()
        assert 100 == limit.limit

    def test_burst_is_not_a_queue(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One slow request among fast ones does not shrink the limit (CoDel: RFC 8289)."""
        now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        limit = limiter()
        for _ in range(50):
            now += 0.11
            limit.admit(0.9).release()
            limit.admit(0.001).release()
        assert 100 == limit.limit

    def test_in_flight(self) -> None:
        """Requests above the limit are rejected; health checks and log-out are not."""
        limit = limiter(most=16)
        held = [limit.admit(0) for _ in range(16)]
        with pytest.raises(UnavailableError):
            limit.admit(0)
        limit.admit(0, always=True).release()
        held.pop().release()
        limit.admit(0).release()

    def test_waited_too_long(self) -> None:
        """A request that waited longer than clients wait is rejected."""
        limit = limiter()
        with pytest.raises(UnavailableError):
            limit.admit(1.1)
        limit.admit(1.1, always=True)

    def test_released_once(self) -> None:
        """Releasing twice, as a stream does, counts once."""
        limit = limiter(most=16)
        held = [limit.admit(0) for _ in range(16)]
        held[0].release()
        held[0].release()
        limit.admit(0)
        with pytest.raises(UnavailableError):
            limit.admit(0)

    @given(st.text(max_size=20))
    def test_any_stamp(self, stamp: str) -> None:
        """Any timestamp from the edge gives an age from 0 to 60 s."""
        assert 0 <= age_seconds({admission.START_HEADER: stamp}) < 60

    def test_age(self) -> None:
        """The age counts from the first byte at the edge; a clock ahead counts as 0."""
        assert 2 <= age_seconds({b"x-amarre-start": str(int(time.time() * 1000) - 2000)}) < 30
        assert 0 == age_seconds({b"x-amarre-start": str(int(time.time() * 1000) + 5000)})


async def test_overload(world: World) -> None:
    """Under overload, a rejection is 503 with Retry-After; /healthz and log-out are served."""
    settings = world.settings.model_copy(update={"gateway_requests_in_flight": 16})
    gateway = build(settings, world.gateway.api.clients)
    held = [gateway.admission.admit(0) for _ in range(16)]
    world.sign_in()
    transport = httpx.ASGITransport(gateway.app)
    async with httpx.AsyncClient(
        transport=transport, base_url="https://localhost:3443", headers=world.http.headers
    ) as http:
        for path in ("/", "/api/v1/me", "/api/v1/health/events"):
            answer = await http.get(path)
            assert (503, "unavailable") == (answer.status_code, answer.json()["error"]["code"])
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["x-request-id"]
            assert answer.headers["traceresponse"]
        assert 0 == world.auth.does.count("GetProfile")
        assert 200 == (await http.get("/healthz")).status_code
        assert 200 == (await http.post("/api/v1/auth/logout")).status_code
        held[0].release()
        assert 200 == (await http.get("/signup")).status_code


async def test_deadline_counts_from_the_edge(world: World) -> None:
    """The waiting time of a request is part of its deadline, so no response comes after it."""
    world.sign_in()
    settings = world.settings.model_copy(
        update={"transport": "sidecar", "gateway_queue_longest": world.settings.drain_timeout}
    )
    app = build(settings, world.gateway.api.clients).app
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="https://localhost:3443",
        headers=world.http.headers,
    ) as http:
        for age, status in ((0, 200), (5000, 504)):
            stamp = {"x-amarre-start": str(int(time.time() * 1000) - age)}
            answer = await http.get("/api/v1/me", headers=stamp)
            assert status == answer.status_code


async def test_slow_upload_is_not_a_queue(world: World) -> None:
    """A request with a slow body is served; one without a body that waited is not."""
    settings = world.settings.model_copy(update={"transport": "sidecar"})
    app = build(settings, world.gateway.api.clients).app
    stamp = {"x-amarre-start": str(int(time.time() * 1000) - 2000)}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="https://localhost:3443",
        headers={**world.http.headers, **stamp},
    ) as http:
        assert 503 == (await http.get("/signup")).status_code
        body = {"email": "ada@example.org"}
        assert 200 == (await http.post("/api/v1/auth/signup", json=body)).status_code


async def test_client_cannot_stamp(world: World) -> None:
    """Without Envoy, a client's timestamp is ignored."""
    stamp = {"x-amarre-start": str(int(time.time() * 1000) - 30_000)}
    assert 200 == (await world.http.get("/signup", headers=stamp)).status_code


async def test_stream_does_not_count(world: World) -> None:
    """A response that becomes an event stream releases its slot."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/stream":
            headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            started.set()
            await ended.wait()
            await send({"type": "http.response.body", "body": b""})
        else:
            await PlainTextResponse("ok")(scope, receive, send)

    started, ended = asyncio.Event(), asyncio.Event()
    limit = Admission(target_seconds=1, oldest_seconds=1, least=1, most=1)
    outer = RequestMiddleware(
        app, ErrorResponses(Site()), behind_envoy=False, hsts_seconds=1, admission=limit
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(outer), base_url="http://test"
    ) as http:
        stream = asyncio.create_task(http.get("/stream"))
        await started.wait()
        assert 200 == (await http.get("/")).status_code
        ended.set()
        assert 200 == (await stream).status_code


class TestStreams:
    def test_limits(self) -> None:
        """Streams are limited per client, per session and in total, and each is released once."""
        limits = StreamLimits(per_client=2, per_session=1, total=4)
        releases = [limits.acquire("192.0.2.1", "") for _ in range(2)]
        with pytest.raises(RateLimitedError) as ei:
            limits.acquire("192.0.2.1", "")
        assert ei.value.retry_after is not None
        releases.append(limits.acquire("", "secret"))
        with pytest.raises(RateLimitedError):
            limits.acquire("", "secret")
        releases.append(limits.acquire("192.0.2.2", ""))
        with pytest.raises(UnavailableError):
            limits.acquire("192.0.2.3", "")
        for release in (*releases, *releases):
            release()
        assert 0 == len(limits)
        limits.acquire("192.0.2.1", "")

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("2001:db8::1", "2001:db8::ffff", True),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
            ("192.0.2.1", "192.0.2.2", False),
            ("::ffff:192.0.2.1", "192.0.2.1", True),
        ],
    )
    def test_client(self, one: str, other: str, same: bool) -> None:
        """An IPv6 /64 is one client (RFC 6177), an IPv4 address is one."""
        assert same is (client_network(one) == client_network(other))

    async def test_refused_early(self, world: World) -> None:
        """Above the limit a stream is 429 with Retry-After; other requests are served."""
        world.health.events = asyncio.Queue()
        world.gateway.api.streams = StreamLimits(per_client=2, per_session=1, total=10)
        async with listening(world) as http:
            async with (
                http.stream("GET", "/api/v1/health/events") as first,
                http.stream("GET", "/api/v1/health/events") as second,
            ):
                assert 200 == first.status_code == second.status_code
                refused = await http.get("/api/v1/health/events")
                assert 429 == refused.status_code
                assert int(refused.headers["retry-after"]) >= 1
                assert 200 == (await http.get("/api/v1/health/status")).status_code
            await eventually(lambda: len(world.gateway.api.streams) == 0)
            async with http.stream("GET", "/api/v1/health/events") as again:
                assert 200 == again.status_code

    async def test_one_upstream_watch(self, world: World) -> None:
        """Anonymous streams share one upstream watch, which ends with the last of them."""
        world.health.events = asyncio.Queue()
        async with listening(world) as http:
            async with (
                http.stream("GET", "/api/v1/health/events") as first,
                http.stream("GET", "/api/v1/health/events") as second,
                http.stream(
                    "GET", "/api/v1/health/events", headers={"last-event-id": "1"}
                ) as third,
            ):
                lines = [answer.aiter_lines() for answer in (first, second, third)]
                for one in lines[:2]:
                    assert "id: 1" in [await anext(one) for _ in range(3)]
                await world.health.events.put("2")
                for one in lines:
                    seen = [await anext(one) for _ in range(3)]
                    assert "id: 2" in seen
                    assert "id: 1" not in seen
                assert 1 == world.health.watchers
            await eventually(lambda: world.health.watchers == 0)

    async def test_upstream_unavailable(self, world: World) -> None:
        """While the upstream watch cannot be opened, a stream is an ordinary 503."""
        world.health.does.failures["WatchStatus"] = UnavailableError("Unavailable.")
        answer = await world.http.get("/api/v1/health/events")
        assert (503, "unavailable") == (answer.status_code, answer.json()["error"]["code"])
        await eventually(lambda: len(world.gateway.api.streams) == 0)
        del world.health.does.failures["WatchStatus"]
        world.health.events = asyncio.Queue()
        async with (
            listening(world) as http,
            http.stream("GET", "/api/v1/health/events") as stream,
        ):
            assert 200 == stream.status_code

    async def test_many_watchers_block_no_call(self, world: World) -> None:
        """Streams use separate connections: 120 watchers do not delay other calls."""
        world.sign_in()
        world.gateway.api.streams = StreamLimits(per_client=1, per_session=200, total=200)
        stub = world.gateway.api.clients.of
        method = next(m for m in policy.load() if m.short_name == "survey.WatchRequests")
        secret = next(iter(world.auth.sessions))
        session = await world.gateway.api.sessions.verify(secret, "survey")
        message = method.descriptor.input_type
        watch = stub(method)
        calls = [watch(binding.shape(message).new(), metadata=session.metadata) for _ in range(120)]
        reads = [asyncio.ensure_future(one.read()) for one in calls]
        try:
            await eventually(lambda: world.survey.watchers == 120)
            async with asyncio.timeout(5):
                assert 200 == (await world.http.get("/api/v1/surveys/list")).status_code
        finally:
            for one in calls:
                one.cancel()
            await asyncio.gather(*reads, return_exceptions=True)


def test_documented() -> None:
    """Every limit setting is in the table of limits."""
    table = Path("docs/reference/limits.md").read_text("utf-8")
    names = [n for n in GatewaySettings.model_fields if n.startswith("gateway_")]
    limits = [
        n
        for n in names
        if n.split("_")[1] in {"streams", "requests", "queue", "sessions", "connections"}
    ]
    assert len(limits) == 9
    others = AuthSettings.model_fields | HealthSettings.model_fields | SurveySettings.model_fields
    limits += [
        name
        for name in others
        if re.search("_(links|log_ins|probes|watches|unknown)_.*(per_|overall|total)", name)
    ]
    assert len(limits) == 18
    for name in limits:
        assert f"`AMARRE_{name.upper()}`" in table
