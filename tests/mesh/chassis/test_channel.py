"""The features of ``channel()`` beyond a plain gRPC channel."""

import asyncio
import contextlib
import functools
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from amarre.health.v1 import health_service_pb2 as health_pb
from amarre.health.v1 import health_service_pb2_grpc as health_rpc
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1 import survey_service_pb2_grpc as rpc

from mesh.chassis import call
from mesh.chassis.call import Call, User
from mesh.chassis.channel import channel
from mesh.chassis.config import MeshSettings
from mesh.chassis.errors import UnavailableError
from mesh.chassis.identity import SpiffeId
from mesh.chassis.telemetry import tracing
from mesh.chassis.testing import connected, served
from mesh.chassis.tokens import SigningKey, mint
from mesh.contract.model import Method
from mesh.local.pki.certificate_authority import CertificateAuthority, install

KEY = SigningKey.generate()
STREAMS = 100
GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")
M = TypeVar("M")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Flaky(rpc.SurveyServiceServicer):
    """A servicer that is unavailable a number of times and records its calls."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0
        self.responses = 0
        """How many responses of a stream come before it fails."""
        self.metadata: dict[str, Any] = {}
        self.seconds_left: float | None = None

    def _answer(self, context: Any, response: M) -> M:
        self.calls += 1
        self.metadata = dict(context.invocation_metadata())
        self.seconds_left = context.time_remaining()
        if self.calls <= self.failures:
            raise UnavailableError("Away for a moment.")
        return response

    async def ListRequests(self, request: Any, context: Any) -> pb.ListRequestsResponse:
        return self._answer(context, pb.ListRequestsResponse())

    async def CreateRequest(self, request: Any, context: Any) -> pb.CreateRequestResponse:
        return self._answer(context, pb.CreateRequestResponse(id="1"))

    async def WatchRequests(
        self, request: Any, context: Any
    ) -> AsyncIterator[pb.WatchRequestsResponse]:
        for _ in range(self.responses):
            yield pb.WatchRequestsResponse()
        self.calls += 1
        if self.calls <= self.failures:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Away for a moment.")
        yield pb.WatchRequestsResponse()


def bearer() -> tuple[tuple[str, str], ...]:
    user = User("ada", "session", "ada@example.org")
    return (("authorization", f"Bearer {mint(KEY, user, audience='survey', caller=GATEWAY)[0]}"),)


@pytest.fixture
def flaky() -> Flaky:
    return Flaky(failures=1)


@pytest.fixture
async def port(flaky: Flaky, svids: Path) -> AsyncIterator[int]:
    def register(server: Any) -> None:
        rpc.add_SurveyServiceServicer_to_server(flaky, server)

    async with served(register, svids / "survey", audience="survey", key=KEY) as bound:
        yield bound


class TestRetries:
    async def test_idempotent(self, port: int, svids: Path, flaky: Flaky) -> None:
        """An idempotent method is retried if the server was unavailable."""
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            await stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer())

        assert 2 == flaky.calls

    async def test_not_idempotent(self, port: int, svids: Path, flaky: Flaky) -> None:
        """A method that is not idempotent is never retried."""
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await stub.CreateRequest(pb.CreateRequestRequest(consent=True), metadata=bearer())

        assert grpc.StatusCode.UNAVAILABLE == ei.value.code()
        assert 1 == flaky.calls

    async def test_token_bucket(self, port: int, svids: Path, flaky: Flaky) -> None:
        """
        While a server is unavailable, retries stop: twenty calls take far fewer than sixty
        attempts.
        """
        flaky.failures = 1_000
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            for _ in range(20):
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer())

        assert 20 < flaky.calls <= 30


@contextlib.asynccontextmanager
async def behind_proxies(flaky: Flaky) -> AsyncIterator[Any]:
    """Yield a stub that calls *flaky* as behind a sidecar, whose proxy answers for the service."""
    server = grpc.aio.server()
    rpc.add_SurveyServiceServicer_to_server(flaky, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    settings = MeshSettings(transport="sidecar", peers={"survey": f"127.0.0.1:{port}"})
    try:
        async with channel("survey", settings) as connection:
            yield rpc.SurveyServiceStub(connection)
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def directly(flaky: Flaky, svids: Path) -> AsyncIterator[Any]:
    register = functools.partial(rpc.add_SurveyServiceServicer_to_server, flaky)
    async with (
        served(register, svids / "survey", audience="survey", key=KEY) as port,
        connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub,
    ):
        yield stub


class TestStreamsAgain:
    """A long-lived stream is opened again until its first response, on either transport."""

    @pytest.fixture(params=["direct", "sidecar"])
    async def stub(self, request: Any, flaky: Flaky, svids: Path) -> AsyncIterator[Any]:
        way = directly(flaky, svids) if request.param == "direct" else behind_proxies(flaky)
        async with way as stub:
            yield stub

    @pytest.mark.parametrize("failures", [1, 3])
    async def test_unavailable(self, stub: Any, flaky: Flaky, failures: int) -> None:
        """A stream that its service could not serve yet is opened again; its caller sees none."""
        flaky.failures = failures
        stream = stub.WatchRequests(pb.WatchRequestsRequest(), metadata=bearer())

        assert 1 == len([response async for response in stream])
        assert failures + 1 == flaky.calls

    async def test_after_a_response(self, stub: Any, flaky: Flaky) -> None:
        """A stream that fails after a response is not: its caller would see it twice."""
        flaky.responses = 1
        stream = stub.WatchRequests(pb.WatchRequestsRequest(), metadata=bearer())
        await stream.read()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.read()

        assert grpc.StatusCode.UNAVAILABLE == refused.value.code()
        assert 1 == flaky.calls

    async def test_calls(self, flaky: Flaky) -> None:
        """Behind a sidecar, the proxy alone retries other calls."""
        async with behind_proxies(flaky) as stub:
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.ListRequests(pb.ListRequestsRequest())

        assert 1 == flaky.calls


class TestCallBeingServed:
    """A call made while another one is being served."""

    async def test_deadline_shrinks(self, port: int, svids: Path, flaky: Flaky) -> None:
        """
        The outgoing call gets the remaining time of the incoming one, less the hop's own share.
        """
        flaky.failures = 0
        now = asyncio.get_running_loop().time()
        call.enter(Call("auth.SignUp", GATEWAY, now + 1.0))

        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            await stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer())

        assert flaky.seconds_left is not None
        assert flaky.seconds_left < 1.0

    async def test_trace_context_is_forwarded(self, port: int, svids: Path, flaky: Flaky) -> None:
        """The outgoing call belongs to the trace of the incoming one."""
        flaky.failures = 0
        tracing.resume(TRACE)

        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            await stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer())

        assert TRACE.split("-")[1] == str(flaky.metadata["traceparent"]).split("-")[1]


async def test_replaced_certificate(
    authority: CertificateAuthority, tmp_path: Path, svids: Path
) -> None:
    """
    After root and leaf certificates are replaced on both sides, the same stub continues to work.
    """
    flaky = Flaky(failures=0)
    for name in ("survey", "gateway"):
        install(authority.issue_svid(name), tmp_path / name)

    def register(server: Any) -> None:
        rpc.add_SurveyServiceServicer_to_server(flaky, server)

    async with served(register, tmp_path / "survey", audience="survey", key=KEY) as port:
        settings = MeshSettings(
            peers={"survey": f"127.0.0.1:{port}"}, svid_dir=tmp_path / "gateway"
        )
        async with channel("survey", settings) as live:
            stub = rpc.SurveyServiceStub(live)
            await stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer())
            new = CertificateAuthority.create()
            for name in ("survey", "gateway"):
                install(new.issue_svid(name), tmp_path / name)
            await stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer())
            with pytest.raises(grpc.aio.AioRpcError):
                async with connected(
                    "survey", port, svids / "gateway", rpc.SurveyServiceStub
                ) as old:
                    await old.ListRequests(pb.ListRequestsRequest(), metadata=bearer(), timeout=2)

    assert 2 == flaky.calls


class Status(health_rpc.HealthServiceServicer):
    """A servicer that responds immediately; a watcher gets one response and then waits."""

    async def GetStatus(self, request: Any, context: Any) -> health_pb.GetStatusResponse:
        return health_pb.GetStatusResponse()

    async def WatchStatus(
        self, request: Any, context: Any
    ) -> AsyncIterator[health_pb.WatchStatusResponse]:
        yield health_pb.WatchStatusResponse()
        await asyncio.Event().wait()


@pytest.fixture
async def status(svids: Path) -> AsyncIterator[Any]:
    def register(server: Any) -> None:
        health_rpc.add_HealthServiceServicer_to_server(Status(), server)

    async with (
        served(register, svids / "health") as port,
        connected("health", port, svids / "gateway", health_rpc.HealthServiceStub) as stub,
    ):
        yield stub


async def watch(stub: Any, stack: contextlib.ExitStack) -> None:
    """Open one stream and wait for its first response."""
    stream = stub.WatchStatus(health_pb.WatchStatusRequest())
    stack.callback(stream.cancel)
    await stream.read()


class TestStreams:
    """A server admits 100 streams per connection; HTTP/2, RFC 9113, section 5.1.2."""

    async def test_watchers(self, status: Any) -> None:
        """Watchers that use up the streams of their connection do not delay other calls."""
        with contextlib.ExitStack() as stack:
            await asyncio.gather(*(watch(status, stack) for _ in range(STREAMS)))
            await status.GetStatus(health_pb.GetStatusRequest(), timeout=30)

    async def test_on_one_connection(self, status: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """On the connection of the watchers, the call would wait until its deadline."""
        monkeypatch.setattr(Method, "stays_open", property(lambda _: False))
        with contextlib.ExitStack() as stack:
            await asyncio.gather(*(watch(status, stack) for _ in range(STREAMS)))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await status.GetStatus(health_pb.GetStatusRequest(), timeout=1)
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_proxy_variables(svids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls within the mesh never use a proxy, whatever the environment says."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def register(server: Any) -> None:
        health_rpc.add_HealthServiceServicer_to_server(Status(), server)

    async with (
        served(register, svids / "health") as port,
        connected("health", port, svids / "gateway", health_rpc.HealthServiceStub) as stub,
    ):
        await stub.GetStatus(health_pb.GetStatusRequest())


BASE = {
    *("amarre", "buf", "mesh", "google", "grpc", "pydantic", "pydantic_core", "pydantic_settings"),
    *("annotated_types", "dotenv", "typing_extensions", "typing_inspection", "cython_runtime"),
    # gRPC imports these by itself where they are installed.
    *("grpc_health", "grpc_reflection", "grpc_tools"),
}
"""The top-level packages of the base installation."""


def test_imports() -> None:
    """A client imports only the base installation: no server, telemetry or database."""
    script = (
        "import sys; before = set(sys.modules); import mesh.chassis.channel, mesh.chassis.config,"
        " mesh.chassis.errors; print(*{n.split('.')[0] for n in set(sys.modules) - before})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    loaded = {name for name in done.stdout.split() if not name.startswith("_")}
    assert loaded - set(sys.stdlib_module_names) <= BASE
    assert "mesh" in loaded
