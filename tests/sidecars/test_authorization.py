"""Callers and tokens at the inbound sidecar."""

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import jwt
import pytest
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1.survey_service_pb2_grpc import SurveyServiceStub
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2

from mesh.chassis.errors import from_rpc_error, unpack
from mesh.chassis.telemetry import names
from mesh.chassis.tokens import ISSUER, TYPE, SigningKey
from mesh.contract import policy
from mesh.contract.faults import WORKLOADS
from mesh.contract.policy import Method
from mesh.local.pki import certificate_authority
from tests.sidecars.support.bed import ADA, GATEWAY, KEY, Bed, bearer
from tests.sidecars.support.surveys import Surveys

METHODS = policy.load().service("survey").methods


async def status_of(channel: grpc.aio.Channel, method: Method, metadata: Any) -> str:
    """Call *method* with an empty request; return the status code's name."""
    request = GetMessageClass(method.descriptor.input_type)()
    kinds: dict[str, Any] = {
        "request_serializer": type(request).SerializeToString,
        "response_deserializer": GetMessageClass(method.descriptor.output_type).FromString,
    }
    try:
        if method.streams:
            async for _ in channel.unary_stream(method.path, **kinds)(request, metadata=metadata):
                pass
        else:
            await channel.unary_unary(method.path, **kinds)(request, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


class TestCallers:
    async def test_matrix(self, bed: Bed) -> None:
        """
        For every caller and method, the sidecar admits exactly the callers in the contract;
        ``rbac.deny.denied`` counts the others.
        """
        sidecar = await bed.service(Surveys())
        wrong, refused = [], 0

        for caller in sorted(WORKLOADS):
            async with bed.directly(sidecar, bed.svids / caller) as channel:
                for method in METHODS:
                    code = await status_of(channel, method, bearer())
                    refused += not method.allows(caller)
                    if (code == "PERMISSION_DENIED") is method.allows(caller):
                        wrong.append((caller, method.short_name, code))

        assert [] == wrong
        assert refused == await sidecar.counter("http.inbound.rbac.deny.denied")

    async def test_a_call_that_is_let_through_is_told(self, bed: Bed) -> None:
        """
        The access log has a line of kind ``access``, even if the caller disconnects before there is
        a status.
        """
        surveys = Surveys()
        surveys.seconds = lambda number: 0.0 if number == 1 else 5.0
        sidecar = await bed.service(surveys)

        async with bed.directly(sidecar, bed.svids / "gateway") as channel:
            list_requests = SurveyServiceStub(channel).ListRequests
            await list_requests(pb.ListRequestsRequest(), metadata=bearer())
            leaving = list_requests(pb.ListRequestsRequest(), metadata=bearer())
            while surveys.calls["ListRequests"] < 2:
                await asyncio.sleep(0.01)
            leaving.cancel()
        whole = await sidecar.logged(lambda line: line["grpc_status"] == "OK")
        left = await sidecar.logged(lambda line: line["code"] == 0)

        assert names.KIND_ACCESS == whole["kind"] == left["kind"]

    async def test_denial_is_explained(self, bed: Bed) -> None:
        """
        The response has no details; the access log's ``details`` have the policy and its contract
        line, in a line of kind ``security``.
        """
        sidecar = await bed.service(Surveys())
        method = policy.load().method("survey.CreateRequest")

        async with bed.directly(sidecar, bed.svids / "health") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await SurveyServiceStub(channel).CreateRequest(pb.CreateRequestRequest())
        line = await sidecar.logged(lambda line: line["grpc_status"] == "PermissionDenied")

        assert grpc.StatusCode.PERMISSION_DENIED == ei.value.code()
        info = unpack(from_rpc_error(ei.value).status, error_details_pb2.ErrorInfo)
        assert info is not None
        assert "PERMISSION_DENIED" == info.reason
        assert "survey.CreateRequest_allows_gateway" in line["details"]
        assert method.source in line["details"]
        assert line["caller"].endswith("/sa/health")
        assert (names.KIND_SECURITY, "warning") == (line["kind"], line["level"])

    @pytest.mark.parametrize(
        "issue",
        [
            pytest.param(lambda a, _: a.issue(uris=[], names=["x"], common_name="x"), id="no id"),
            pytest.param(
                lambda a, _: a.issue(
                    uris=["spiffe://evil.local/ns/amarre/sa/gateway"], names=["x"], common_name="x"
                ),
                id="other trust domain",
            ),
            pytest.param(lambda _, other: other.issue_svid("gateway"), id="other authority"),
        ],
    )
    async def test_foreign_certificates(
        self,
        bed: Bed,
        issue: Callable[
            [
                certificate_authority.CertificateAuthority,
                certificate_authority.CertificateAuthority,
            ],
            certificate_authority.Issued,
        ],
    ) -> None:
        """
        A certificate of another authority fails the handshake; ``ssl.fail_verify_*`` counts it.
        """
        sidecar = await bed.service(Surveys())
        issued = issue(bed.authority, certificate_authority.CertificateAuthority.create())
        folder = bed.folder / "foreign"
        certificate_authority.install(issued, folder, bundle=bed.authority.pem())

        async with bed.directly(sidecar, folder) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await SurveyServiceStub(channel).ListRequests(pb.ListRequestsRequest(), timeout=2)

        assert grpc.StatusCode.UNAVAILABLE == ei.value.code()
        failed = await sidecar.admin.counters("^listener.*ssl.fail_verify_(san|error)$")
        assert 1 <= sum(failed.values())

    async def test_json_is_refused(self, bed: Bed) -> None:
        """
        A workload that speaks JSON over HTTP/1.1 gets no response; ``downstream_cx_protocol_error``
        counts it.
        """
        sidecar = await bed.service(Surveys())
        folder = bed.svids / "gateway"
        context = ssl.create_default_context(cafile=folder / "ca.crt")
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")

        async with httpx.AsyncClient(verify=context) as client:
            with pytest.raises(httpx.HTTPError):
                await client.post(
                    f"https://{sidecar.proxy.inbound}{METHODS[0].path}", json={"consent": True}
                )

        assert 1 == await sidecar.counter("http.inbound.downstream_cx_protocol_error")

    async def test_forged_identity(self, bed: Bed) -> None:
        """
        A client's ``x-forwarded-client-cert`` is replaced by the id of its certificate.
        """
        surveys = Surveys()
        sidecar = await bed.service(surveys)
        forged = ("x-forwarded-client-cert", "URI=spiffe://amarre.local/ns/amarre/sa/gateway")

        async with bed.directly(sidecar, bed.svids / "auth") as channel:
            await SurveyServiceStub(channel).FindContact(
                pb.FindContactRequest(email="ada@example.org"), metadata=(forged,)
            )

        assert "auth" == surveys.caller
        assert surveys.metadata["x-forwarded-client-cert"].endswith("/sa/auth")


def signed(key: Any = KEY.private, algorithm: str = "EdDSA", **changed: Any) -> str:
    """Return a token like those of Auth, except for *changed*; None drops a claim."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "aud": "survey",
        "sub": ADA.id,
        "sid": ADA.session_id,
        "email": ADA.email,
        "labels": [],
        "auth_time": now,
        "partial": False,
        "azp": str(GATEWAY),
        "iat": now,
        "exp": now + 60,
        "jti": "1",
    } | changed
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm, headers={"typ": TYPE, "kid": KEY.kid})


def public_key_as_secret() -> bytes:
    """Return the public key's bytes, with which a confused verifier would check an HMAC."""
    return KEY.jwk()["x"].encode()


class TestTokens:
    async def test_good_one(self, bed: Bed) -> None:
        """A token from Auth passes the sidecar; ``jwt_authn.allowed`` counts it."""
        sidecar = await bed.service(Surveys())

        async with bed.directly(sidecar, bed.svids / "gateway") as channel:
            await SurveyServiceStub(channel).ListRequests(
                pb.ListRequestsRequest(), metadata=(("authorization", f"Bearer {signed()}"),)
            )

        assert 1 == await sidecar.counter("http.inbound.jwt_authn.allowed")

    @pytest.mark.parametrize(
        "token",
        [
            pytest.param(lambda: "", id="missing"),
            pytest.param(lambda: "nonsense", id="nonsense"),
            pytest.param(lambda: signed(exp=int(time.time()) - 30), id="expired"),
            pytest.param(lambda: signed(exp=None), id="without expiry"),
            pytest.param(lambda: signed(exp=int(time.time()) + 63_072_000), id="two years"),
            pytest.param(lambda: signed(aud="auth"), id="wrong audience"),
            pytest.param(lambda: signed(iss="https://evil.example"), id="wrong issuer"),
            pytest.param(lambda: signed(SigningKey.generate().private), id="wrong key"),
            pytest.param(lambda: signed(None, "none"), id="alg none"),
            pytest.param(
                lambda: signed(public_key_as_secret(), "HS256"), id="HS256 with the public key"
            ),
        ],
    )
    async def test_bad_ones(self, bed: Bed, token: Callable[[], str]) -> None:
        """Every other token is UNAUTHENTICATED and never reaches the service;
        ``jwt_authn.denied`` counts it.
        """
        surveys = Surveys()
        sidecar = await bed.service(surveys)
        text = token()
        metadata = (("authorization", f"Bearer {text}"),) if text else ()

        async with bed.directly(sidecar, bed.svids / "gateway") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await SurveyServiceStub(channel).ListRequests(
                    pb.ListRequestsRequest(), metadata=metadata
                )

        assert grpc.StatusCode.UNAUTHENTICATED == ei.value.code()
        assert "UNAUTHENTICATED" == from_rpc_error(ei.value).contract.name
        assert 0 == surveys.calls["ListRequests"]
        assert 1 == await sidecar.counter("http.inbound.jwt_authn.denied")

    async def test_no_keys(self, bed: Bed) -> None:
        """A proxy that could not fetch Auth's keys returns UNAVAILABLE: the token may be valid."""
        sidecar = await bed.service(Surveys(), keys=f"unix:{bed.folder}/nobody.sock")

        async with bed.directly(sidecar, bed.svids / "gateway") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await SurveyServiceStub(channel).ListRequests(
                    pb.ListRequestsRequest(), metadata=(("authorization", f"Bearer {signed()}"),)
                )

        assert grpc.StatusCode.UNAVAILABLE == ei.value.code()
        assert "UNAVAILABLE" == from_rpc_error(ei.value).contract.name
