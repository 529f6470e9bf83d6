"""``serve()`` and ``channel()`` over real mTLS."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from amarre.survey.v1 import survey_pb2
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1 import survey_service_pb2_grpc as rpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

from mesh.chassis import call
from mesh.chassis.call import User
from mesh.chassis.errors import MeshError, NotFoundError, from_rpc_error, unpack
from mesh.chassis.identity import SpiffeId
from mesh.chassis.server import Server
from mesh.chassis.telemetry import names
from mesh.chassis.testing import connected, served
from mesh.chassis.tokens import SigningKey, mint
from mesh.contract import policy, reasons
from mesh.contract.faults import PolicyError
from mesh.contract.policy import Mesh
from mesh.local.pki.certificate_authority import CertificateAuthority, Issued

KEY = SigningKey.generate()
PATIENCE_SECONDS = 30
ADA = User("ada", "session-1", "ada@example.org", ("applicant",))
GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")


class Surveys(rpc.SurveyServiceServicer):
    """A minimal servicer, to observe what the chassis does around a handler."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds_left: float | None = None
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.large = 0

    async def ListRequests(self, request: Any, context: Any) -> pb.ListRequestsResponse:
        self.calls += 1
        self.seconds_left = call.remaining_seconds()
        return pb.ListRequestsResponse(requests=[survey_pb2.Request(id=call.user().id)])

    async def GetLink(self, request: Any, context: Any) -> pb.GetLinkResponse:
        if request.record == "absent":
            raise NotFoundError("There is no such request.")
        if request.record == "slow":
            self.started.set()
            await self.release.wait()
            return pb.GetLinkResponse(url="https://late.example.org")
        raise RuntimeError(f"a secret inside: {request.record}")

    async def GetPdf(self, request: Any, context: Any) -> AsyncIterator[pb.GetPdfResponse]:
        yield pb.GetPdfResponse()
        raise NotFoundError("There is no such request.")

    async def WatchRequests(
        self, request: Any, context: Any
    ) -> AsyncIterator[pb.WatchRequestsResponse]:
        yield pb.WatchRequestsResponse()
        for _ in range(self.large):
            yield pb.WatchRequestsResponse(event_id="x" * 2_000_000)
        await asyncio.Event().wait()


def make_surveys() -> Surveys:
    return Surveys()


@pytest.fixture
def surveys() -> Surveys:
    return make_surveys()


@pytest.fixture
async def port(surveys: Surveys, svids: Path) -> AsyncIterator[int]:
    def register(server: Any) -> None:
        rpc.add_SurveyServiceServicer_to_server(surveys, server)

    async with served(register, svids / "survey", audience="survey", key=KEY) as bound:
        yield bound


def bearer(audience: str = "survey", caller: SpiffeId = GATEWAY) -> tuple[tuple[str, str], ...]:
    token, _ = mint(KEY, ADA, audience=audience, caller=caller)
    return (("authorization", f"Bearer {token}"),)


async def list_requests(port: int, folder: Path, **kwargs: Any) -> Any:
    async with connected("survey", port, folder, rpc.SurveyServiceStub) as stub:
        return await stub.ListRequests(pb.ListRequestsRequest(), **kwargs)


async def refused(port: int, folder: Path, **kwargs: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as ei:
        await list_requests(port, folder, timeout=3, **kwargs)
    return ei.value


async def test_nothing_in_flight(port: int) -> None:
    """Before its first call, a server reports 0 calls in flight instead of no value."""
    labels = {"service": "survey"}
    assert 0 == REGISTRY.get_sample_value(names.RPC_SERVER_IN_FLIGHT, labels)


class TestCallers:
    async def test_named_caller(self, port: int, svids: Path) -> None:
        """A caller in the contract is admitted, and the handler sees the user."""
        answer = await list_requests(port, svids / "gateway", metadata=bearer())

        assert ["ada"] == [request.id for request in answer.requests]

    @pytest.mark.parametrize("name", ["auth", "health", "operator", "survey"])
    async def test_unnamed_caller(
        self, port: int, svids: Path, surveys: Surveys, name: str
    ) -> None:
        """A workload that is not in the contract is denied before its token is checked."""
        error = await refused(port, svids / name, metadata=(("authorization", "nonsense"),))

        assert grpc.StatusCode.PERMISSION_DENIED == error.code()
        assert "survey.ListRequests" == from_rpc_error(error).metadata["method"]
        assert name == from_rpc_error(error).metadata["caller"]
        assert 0 == surveys.calls

    @pytest.mark.parametrize(
        "uris",
        [
            pytest.param([], id="no SPIFFE id"),
            pytest.param(["spiffe://evil.example/ns/amarre/sa/gateway"], id="other trust domain"),
            pytest.param(["spiffe://amarre.local/ns/other/sa/gateway"], id="other namespace"),
            pytest.param(["spiffe://amarre.local/ns/amarre/sa/gateway/x"], id="longer path"),
            pytest.param(["https://amarre.local/ns/amarre/sa/gateway"], id="no spiffe scheme"),
            pytest.param(
                [
                    "spiffe://amarre.local/ns/amarre/sa/gateway",
                    "spiffe://amarre.local/ns/amarre/sa/survey",
                ],
                id="two URI SANs",
            ),
        ],
    )
    async def test_right_ca_wrong_identity(
        self,
        port: int,
        authority: CertificateAuthority,
        installed: Callable[[Issued], Path],
        surveys: Surveys,
        uris: list[str],
    ) -> None:
        """A certificate of our CA without exactly one identity of this mesh is rejected."""
        issued = authority.issue(uris=uris, names=["localhost"], common_name="someone")

        error = await refused(port, installed(issued), metadata=bearer())

        assert grpc.StatusCode.PERMISSION_DENIED == error.code()
        assert 0 == surveys.calls

    async def test_other_ca(
        self, port: int, authority: CertificateAuthority, installed: Callable[[Issued], Path]
    ) -> None:
        """The same identity from another CA fails the handshake."""
        foreign = CertificateAuthority.create().issue_svid("gateway")

        error = await refused(
            port,
            installed(Issued(foreign.chain, foreign.key, authority.pem())),
            metadata=bearer(),
        )

        assert grpc.StatusCode.UNAVAILABLE == error.code()

    async def test_expired(
        self, port: int, authority: CertificateAuthority, installed: Callable[[Issued], Path]
    ) -> None:
        """An expired certificate fails the handshake."""
        issued = authority.issue(
            uris=[str(GATEWAY)],
            names=["localhost"],
            common_name="gateway workload",
            lifetime=dt.timedelta(hours=1),
            not_before=dt.datetime.now(dt.UTC) - dt.timedelta(days=2),
        )

        error = await refused(port, installed(issued), metadata=bearer())

        assert grpc.StatusCode.UNAVAILABLE == error.code()

    async def test_no_certificate(self, port: int, authority: CertificateAuthority) -> None:
        """A client without a certificate fails the handshake."""
        options = [("grpc.ssl_target_name_override", "survey.amarre.local")]
        credentials = grpc.ssl_channel_credentials(authority.pem())
        async with grpc.aio.secure_channel(
            f"127.0.0.1:{port}", credentials, options=options
        ) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await rpc.SurveyServiceStub(channel).ListRequests(
                    pb.ListRequestsRequest(), timeout=3
                )

        assert grpc.StatusCode.UNAVAILABLE == ei.value.code()


class TestServerIsChecked:
    async def test_server_with_another_identity(self, svids: Path) -> None:
        """A client of Survey rejects a server with Health's certificate."""

        def register(server: Any) -> None:
            rpc.add_SurveyServiceServicer_to_server(make_surveys(), server)

        async with served(register, svids / "health", audience="survey", key=KEY) as port:
            error = await refused(port, svids / "gateway", metadata=bearer())

        assert grpc.StatusCode.UNAVAILABLE == error.code()


class TestUsers:
    @pytest.mark.parametrize(
        "metadata",
        [
            pytest.param((), id="none"),
            pytest.param((("authorization", "Bearer x.y.z"),), id="nonsense"),
            pytest.param(bearer(audience="auth"), id="another audience"),
            pytest.param(
                bearer(caller=SpiffeId("amarre.local", "amarre", "health")), id="another caller"
            ),
            pytest.param(bearer() + bearer(), id="two tokens"),
        ],
    )
    async def test_refused(
        self, port: int, svids: Path, surveys: Surveys, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        """
        A call without exactly one valid token for this audience and caller is UNAUTHENTICATED.
        """
        error = await refused(port, svids / "gateway", metadata=metadata)

        assert grpc.StatusCode.UNAUTHENTICATED == error.code()
        assert 0 == surveys.calls


class TestRequests:
    async def test_broken_rule(self, port: int, svids: Path) -> None:
        """
        A request that violates a rule never reaches the handler, and the error names the field.
        """
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await stub.GetLink(pb.GetLinkRequest(record="1"), metadata=bearer())

        error = from_rpc_error(ei.value)
        assert grpc.StatusCode.INVALID_ARGUMENT == ei.value.code()
        assert ["instrument"] == [violation.field for violation in error.violations]

    async def test_deadline_of_the_contract(self, port: int, svids: Path, surveys: Surveys) -> None:
        """A caller's longer deadline is capped by the contract's 5 s."""
        await list_requests(port, svids / "gateway", metadata=bearer(), timeout=3600)

        assert surveys.seconds_left is not None
        assert 4 < surveys.seconds_left <= 5

    async def test_shorter_deadline_of_the_caller(
        self, port: int, svids: Path, surveys: Surveys
    ) -> None:
        """A caller's shorter deadline applies."""
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await stub.GetLink(
                    pb.GetLinkRequest(record="slow", instrument="form"),
                    metadata=bearer(),
                    timeout=0.2,
                )

        assert grpc.StatusCode.DEADLINE_EXCEEDED == ei.value.code()

    async def test_lifetime_of_a_stream(
        self, port: int, svids: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A long-lived stream ends normally at its deadline and does not use the error budget."""

        def ended(code: str) -> float:
            labels = {"service": "survey", "method": "WatchRequests", "code": code, "reason": ""}
            return REGISTRY.get_sample_value(f"{names.RPC_SERVER_DURATION}_count", labels) or 0

        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            watched = policy.load().method("survey.WatchRequests")
            monkeypatch.setitem(watched.__dict__, "deadline_seconds", 0.2)
            before = ended("OK")
            stream = stub.WatchRequests(
                pb.WatchRequestsRequest(), metadata=bearer(), timeout=PATIENCE_SECONDS
            )
            assert 1 == len([response async for response in stream])
            assert grpc.StatusCode.OK == await stream.code()

        assert 1 == ended("OK") - before

    async def test_lifetime_ends_while_sending(
        self, port: int, svids: Path, surveys: Surveys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A stream whose lifetime ends while a message waits for a slow client ends after it.

        Cancelled within its own send, gRPC answers nothing, and the client would wait for ever.
        """
        surveys.large = 20
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            watched = policy.load().method("survey.WatchRequests")
            monkeypatch.setitem(watched.__dict__, "deadline_seconds", 0.3)
            stream = stub.WatchRequests(pb.WatchRequestsRequest(), metadata=bearer(), timeout=10)
            await stream.read()
            await asyncio.sleep(0.6)
            late = 0
            while await stream.read() is not grpc.aio.EOF:
                late += 1

            assert grpc.StatusCode.OK == await stream.code()
        assert 1 <= late < 20


class TestErrors:
    async def test_error_of_the_tree(self, port: int, svids: Path) -> None:
        """A raised error arrives as its status with exactly one ErrorInfo."""
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await stub.GetLink(
                    pb.GetLinkRequest(record="absent", instrument="form"), metadata=bearer()
                )

        error = from_rpc_error(ei.value)
        info = unpack(error.status, error_details_pb2.ErrorInfo)
        assert grpc.StatusCode.NOT_FOUND == ei.value.code()
        assert info is not None
        assert ("NOT_FOUND", "mesh.amarre") == (info.reason, info.domain)

    async def test_error_within_a_stream(self, port: int, svids: Path) -> None:
        """An error after the first message of a stream arrives with its reason as well."""
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                async for _ in stub.GetPdf(pb.GetPdfRequest(record_id="1"), metadata=bearer()):
                    pass

        assert "NOT_FOUND" == from_rpc_error(ei.value).contract.name

    async def test_unknown_exception(
        self, port: int, svids: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """An unexpected exception is INTERNAL, and its text is not exposed."""
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await stub.GetLink(
                    pb.GetLinkRequest(record="7", instrument="form"), metadata=bearer()
                )

        assert grpc.StatusCode.INTERNAL == ei.value.code()
        assert "secret" not in str(ei.value.details())


class TestBuiltIn:
    async def test_health_for_any_workload(self, port: int, svids: Path) -> None:
        """Any workload may call health checks."""

        async def status() -> int:
            asking = connected("survey", port, svids / "auth", health_pb2_grpc.HealthStub)
            async with asking as stub:
                request = health_pb2.HealthCheckRequest(service="amarre.survey.v1.SurveyService")
                answer = await stub.Check(request)
                return int(answer.status)

        async with asyncio.timeout(5):
            while await status() != health_pb2.HealthCheckResponse.SERVING:
                await asyncio.sleep(0.05)

    @pytest.mark.parametrize("kind", ["checks", "watched"])
    async def test_dependency_unavailable(self, kind: str, svids: Path) -> None:
        """A failing check is measured; only one that is not merely watched stops service."""

        async def fails() -> bool:
            raise OSError

        checks: Any = {kind: {f"the {kind}": fails}}
        register = partial(rpc.add_SurveyServiceServicer_to_server, Surveys())
        expected = {"checks": health_pb2.HealthCheckResponse.NOT_SERVING}
        async with (
            served(register, svids / "survey", **checks) as port,
            connected("survey", port, svids / "auth", health_pb2_grpc.HealthStub) as stub,
            asyncio.timeout(5),
        ):
            labels = {"dependency": f"the {kind}"}
            while REGISTRY.get_sample_value(names.DEPENDENCY_UP, labels) is None:
                await asyncio.sleep(0.02)
            wanted = expected.get(kind, health_pb2.HealthCheckResponse.SERVING)
            while (await stub.Check(health_pb2.HealthCheckRequest())).status != wanted:
                await asyncio.sleep(0.02)

            assert 0 == REGISTRY.get_sample_value(names.DEPENDENCY_UP, labels)

    @pytest.mark.parametrize(("name", "allowed"), [("operator", True), ("gateway", False)])
    async def test_reflection(self, port: int, svids: Path, name: str, allowed: bool) -> None:
        """Reflection is only for the operator identity."""
        from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

        async def ask(stub: Any) -> list[str]:
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            async for answer in stub.ServerReflectionInfo(iter([request])):
                return [service.name for service in answer.list_services_response.service]
            return []

        async def silence() -> AsyncIterator[Any]:
            # A write that meets the refusal fails within gRPC, at times.
            await asyncio.Event().wait()
            yield

        stub = reflection_pb2_grpc.ServerReflectionStub
        async with connected("survey", port, svids / name, stub) as reflection:
            if allowed:
                assert "amarre.survey.v1.SurveyService" in await ask(reflection)
            else:
                refused = reflection.ServerReflectionInfo(silence())
                assert grpc.StatusCode.PERMISSION_DENIED == await refused.code()


class TestStart:
    def test_method_without_policy(self, svids: Path) -> None:
        """A method without a policy is rejected at startup, by name."""

        async def build() -> None:
            from mesh.chassis.config import MeshSettings

            settings = MeshSettings(listen="unix:unused.sock", transport="sidecar")
            Server(
                settings,
                lambda server: rpc.add_SurveyServiceServicer_to_server(make_surveys(), server),
                mesh=Mesh(()),
            )

        with pytest.raises(PolicyError, match=r"AM001 amarre\.survey\.v1\.SurveyService\.GetPdf"):
            asyncio.run(build())


class TestDrain:
    async def test_call_in_flight_is_kept(self, svids: Path, surveys: Surveys) -> None:
        """A call in flight when the server stops is completed."""

        def register(server: Any) -> None:
            rpc.add_SurveyServiceServicer_to_server(surveys, server)

        serving = served(register, svids / "survey", audience="survey", key=KEY)
        port = await serving.__aenter__()
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            flying = asyncio.ensure_future(
                stub.GetLink(pb.GetLinkRequest(record="slow", instrument="form"), metadata=bearer())
            )
            await surveys.started.wait()
            stopping = asyncio.ensure_future(serving.__aexit__(None, None, None))
            await asyncio.sleep(0)  # the server has been told to stop
            surveys.release.set()
            answer = await flying
            await stopping

        assert "https://late.example.org" == answer.url


def test_every_error_has_a_contract() -> None:
    """Every error class has a reason defined in the contracts."""
    import mesh.chassis.errors as tree

    classes = [c for c in vars(tree).values() if isinstance(c, type) and issubclass(c, MeshError)]
    for kind in classes:
        if kind is not tree.RemoteError:
            found = reasons.find(kind.area, kind.reason)
            assert found is not None
            assert kind.reason == found.name
