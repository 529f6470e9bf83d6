"""Which calls create spans, and their attributes and relations."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1 import survey_service_pb2_grpc as rpc
from opentelemetry.trace import StatusCode

from mesh.chassis import telemetry
from mesh.chassis.call import User
from mesh.chassis.errors import NotFoundError
from mesh.chassis.identity import SpiffeId
from mesh.chassis.telemetry import names, tracing
from mesh.chassis.testing import connected, served
from mesh.chassis.tokens import SigningKey, mint
from mesh.local.pki.certificate_authority import CertificateAuthority, Issued
from tests.mesh.chassis.telemetry import SAMPLED, TRACE, UNSAMPLED, Spans, recorded

KEY = SigningKey.generate()
ADA = User("ada", "session-1", "ada@example.org", ("applicant",))
GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")


class Surveys(rpc.SurveyServiceServicer):
    """A servicer that succeeds, fails, or calls an external system, depending on the record."""

    async def GetLink(self, request: Any, context: Any) -> pb.GetLinkResponse:
        if request.record == "absent":
            raise NotFoundError("There is no such request.")
        if request.record == "broken":
            raise RuntimeError("something")
        if request.record == "slow":
            await asyncio.sleep(0.51)
        if request.record == "outside":
            transport = httpx.MockTransport(lambda _: httpx.Response(503))
            async with telemetry.http_client(
                "redcap", segments=["api"], transport=transport
            ) as client:
                await client.post("http://redcap.example/api/ada/?user=ada")
        return pb.GetLinkResponse(url="https://example.org")


@pytest.fixture
def spans() -> Iterator[Spans]:
    with recorded() as kept:
        yield kept


def register(server: Any) -> None:
    rpc.add_SurveyServiceServicer_to_server(Surveys(), server)


@pytest.fixture
async def stub(svids: Path) -> AsyncIterator[Any]:
    async with (
        served(register, svids / "survey", audience="survey", key=KEY) as port,
        connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as connection,
    ):
        yield connection


async def get_link(stub: Any, record: str, context: str) -> None:
    token, _ = mint(KEY, ADA, audience="survey", caller=GATEWAY)
    tracing.resume(context)
    await stub.GetLink(
        pb.GetLinkRequest(record=record, instrument="form"),
        metadata=(("authorization", f"Bearer {token}"),),
    )
    tracing.resume("")


async def told(spans: Spans, count: int) -> None:
    """Wait for spans: client spans end just after their calls."""
    async with asyncio.timeout(5):
        while len(spans) < count:
            await asyncio.sleep(0.005)


class TestSampledCall:
    async def test_edge(self, stub: Any, spans: Spans) -> None:
        """A sampled call creates one client span and, below it, one server span."""
        await get_link(stub, "one", SAMPLED)
        await told(spans, 2)

        (client,), (server,) = spans.of("CLIENT"), spans.of("SERVER")
        assert "amarre.survey.v1.SurveyService/GetLink" == client.name == server.name
        assert TRACE == f"{server.context.trace_id:032x}" == f"{client.context.trace_id:032x}"
        assert client.parent
        assert SAMPLED[36:52] == f"{client.parent.span_id:016x}"
        assert server.parent
        assert client.context.span_id == server.parent.span_id

    async def test_attributes(self, stub: Any, spans: Spans) -> None:
        """Both follow the semantic conventions; the server adds caller and user."""
        await get_link(stub, "one", SAMPLED)
        await told(spans, 2)

        common = {
            "rpc.system.name": "grpc",
            "rpc.method": "amarre.survey.v1.SurveyService/GetLink",
            "rpc.response.status_code": "OK",
        }
        assert [common] == [dict(span.attributes or {}) for span in spans.of("CLIENT")]
        assert [
            {**common, "amarre.caller": "gateway", "enduser.pseudo.id": telemetry.pseudonym("ada")}
        ] == [dict(span.attributes or {}) for span in spans.of("SERVER")]

    async def test_what_the_caller_did_wrong(self, stub: Any, spans: Spans) -> None:
        """NOT_FOUND does not mark the span as an error."""
        with pytest.raises(grpc.aio.AioRpcError):
            await get_link(stub, "absent", SAMPLED)
        await told(spans, 2)

        assert [StatusCode.UNSET] * 2 == [span.status.status_code for span in spans]
        assert ["NOT_FOUND"] * 2 == [(span.attributes or {})[names.RPC_STATUS] for span in spans]

    async def test_what_the_server_did_wrong(self, stub: Any, spans: Spans) -> None:
        """INTERNAL marks both spans as errors with the reason."""
        with pytest.raises(grpc.aio.AioRpcError):
            await get_link(stub, "broken", SAMPLED)
        await told(spans, 2)

        assert [StatusCode.ERROR] * 2 == [span.status.status_code for span in spans]
        assert {"INTERNAL"} == {(span.attributes or {})[names.ERROR_TYPE] for span in spans}

    async def test_stranger(
        self,
        svids: Path,
        authority: CertificateAuthority,
        installed: Callable[[Issued], Path],
        spans: Spans,
    ) -> None:
        """A caller of another namespace has no name in the mesh; the span has its SPIFFE id."""
        uri = "spiffe://amarre.local/ns/other/sa/gateway"
        svid = installed(authority.issue(uris=[uri], names=["localhost"], common_name="someone"))
        async with (
            served(register, svids / "survey", audience="survey", key=KEY) as port,
            connected("survey", port, svid, rpc.SurveyServiceStub) as stranger,
        ):
            with pytest.raises(grpc.aio.AioRpcError):
                await get_link(stranger, "one", SAMPLED)
            await told(spans, 2)

        (server,) = spans.of("SERVER")
        attributes = server.attributes or {}
        assert (uri, None) == (attributes[names.CALLER_ID], attributes.get(names.CALLER))

    async def test_refusal(self, stub: Any, spans: Spans) -> None:
        """A denied call names the policy option and the SPIFFE id of the caller."""
        tracing.resume(SAMPLED)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GetLink(pb.GetLinkRequest(record="one", instrument="form"))
        tracing.resume("")
        await told(spans, 2)

        (server,) = spans.of("SERVER")
        caller = str((server.attributes or {})[names.CALLER_ID])
        assert caller.startswith("spiffe://")
        assert caller.endswith("/sa/gateway")
        policy = (server.attributes or {})[names.POLICY]
        assert str(policy).startswith("amarre/survey/v1/survey_service.proto:")

    async def test_system_outside(self, stub: Any, spans: Spans) -> None:
        """A request to an external system is a span below the call, without query and ids."""
        await get_link(stub, "outside", SAMPLED)
        await told(spans, 3)

        (outside,) = [span for span in spans if span.name == "POST redcap"]
        (server,) = spans.of("SERVER")
        assert outside.parent
        assert server.context.span_id == outside.parent.span_id
        assert {
            "http.request.method": "POST",
            "url.template": "/api/{id}/",
            "service.peer.name": "redcap",
            "peer.service": "redcap",
            "server.address": "redcap.example",
            "server.port": 80,
            "http.response.status_code": 503,
            "error.type": "503",
        } == dict(outside.attributes or {})


class TestUnsampledCall:
    async def test_nothing(self, stub: Any, spans: Spans) -> None:
        """An unsampled successful call creates no span."""
        await get_link(stub, "outside", UNSAMPLED)

        assert 0 == len(spans)

    @pytest.mark.parametrize("record", ["broken", "slow"])
    async def test_worth_keeping(self, stub: Any, spans: Spans, record: str) -> None:
        """An unsampled call that fails or exceeds its objective gets one span afterwards."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            await get_link(stub, record, UNSAMPLED)
        await told(spans, 1)

        (span,) = spans
        assert TRACE == f"{span.context.trace_id:032x}"
        assert (span.attributes or {})[names.LATE] is True
        assert "gateway" == (span.attributes or {})[names.CALLER]
        lasted = ((span.end_time or 0) - (span.start_time or 0)) / 1e9
        assert record == "broken" or lasted > 0.5

    async def test_callers_mistake(self, stub: Any, spans: Spans) -> None:
        """A caller error is not a reason to record an unsampled call."""
        with pytest.raises(grpc.aio.AioRpcError):
            await get_link(stub, "absent", UNSAMPLED)

        assert 0 == len(spans)


class TestSampling:
    @pytest.mark.parametrize(
        ("traceparent", "sampled"),
        [
            pytest.param(SAMPLED, True, id="sampled"),
            pytest.param(SAMPLED[:-2] + "03", True, id="sampled, random id"),
            pytest.param(UNSAMPLED, False, id="not sampled"),
            pytest.param(SAMPLED[:-2] + "02", False, id="not sampled, random id"),
            pytest.param(SAMPLED[:-2] + "zz", False, id="no flags"),
            pytest.param("", False, id="absent"),
        ],
    )
    def test_flag(self, traceparent: str, sampled: bool) -> None:
        """Only the last bit of the flags is relevant."""
        assert sampled == tracing.is_sampled(traceparent)

    def test_share(self) -> None:
        """New traces are well formed and sampled at the configured rate."""
        tracing.sample(0.25)
        try:
            made = [tracing.new_traceparent() for _ in range(4000)]
        finally:
            tracing.sample(1.0)

        assert 700 < sum(map(tracing.is_sampled, made)) < 1300
        assert 4000 == len({tracing.trace_id(context) for context in made})

    def test_malformed_context(self, spans: Spans) -> None:
        """A malformed trace context creates no span and no exception."""
        tracing.resume("00-" + "x" * 32 + "-" + "y" * 16 + "-01")
        with tracing.client("anything", {}) as span:
            assert span is None
        tracing.resume("")

        assert 0 == len(spans)
