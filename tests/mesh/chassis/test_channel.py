"""What ``channel()`` does beyond a plain gRPC channel."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
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
from mesh.local.pki.certificate_authority import CertificateAuthority, install

KEY = SigningKey.generate()
GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")
M = TypeVar("M")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Flaky(rpc.SurveyServiceServicer):
    """Is away a number of times, and remembers what it saw."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0
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
        """
        A method that the contract calls harmless is tried again when the server was away.
        """
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            await stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer())

        assert 2 == flaky.calls

    async def test_not_idempotent(self, port: int, svids: Path, flaky: Flaky) -> None:
        """
        A method that is not idempotent is tried once, whatever happens.
        """
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await stub.CreateRequest(pb.CreateRequestRequest(consent=True), metadata=bearer())

        assert grpc.StatusCode.UNAVAILABLE == ei.value.code()
        assert 1 == flaky.calls

    async def test_token_bucket(self, port: int, svids: Path, flaky: Flaky) -> None:
        """
        While a server stays away, retries stop: twenty calls cost far fewer than sixty attempts.
        """
        flaky.failures = 1_000
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            for _ in range(20):
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer())

        assert 20 < flaky.calls <= 30


class TestCallBeingServed:
    """A call that is made while another is being served."""

    async def test_deadline_shrinks(self, port: int, svids: Path, flaky: Flaky) -> None:
        """
        The outgoing call gets what is left of the incoming one, less the hop's own share.
        """
        flaky.failures = 0
        now = asyncio.get_running_loop().time()
        call.enter(Call("auth.SignUp", GATEWAY, now + 1.0))

        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            await stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer())

        assert flaky.seconds_left is not None
        assert flaky.seconds_left < 1.0

    async def test_trace_context_is_forwarded(self, port: int, svids: Path, flaky: Flaky) -> None:
        """
        The outgoing call belongs to the trace of the incoming one.
        """
        flaky.failures = 0
        tracing.resume(TRACE)

        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            await stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer())

        assert TRACE.split("-")[1] == str(flaky.metadata["traceparent"]).split("-")[1]


async def test_replaced_certificate(
    authority: CertificateAuthority, tmp_path: Path, svids: Path
) -> None:
    """
    After root and leaves were replaced on both sides the same stub goes on, with the new ones.
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
