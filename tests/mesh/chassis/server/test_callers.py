"""Who may call: callers, servers and users are identified."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1 import survey_service_pb2_grpc as rpc

from mesh.chassis.errors import from_rpc_error
from mesh.chassis.identity import SpiffeId
from mesh.chassis.testing import served
from mesh.local.pki.certificate_authority import CertificateAuthority, Issued
from tests.mesh.chassis.server.surveys import (
    GATEWAY,
    KEY,
    Surveys,
    bearer,
    list_requests,
    make_surveys,
    refused,
)


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

    @pytest.mark.parametrize("place", ["amarre.local/ns/other", "evil.example/ns/amarre"])
    async def test_stranger(
        self,
        port: int,
        authority: CertificateAuthority,
        installed: Callable[[Issued], Path],
        place: str,
    ) -> None:
        """The error, and with it the log line, says who was denied."""
        stranger = f"spiffe://{place}/sa/gateway"
        issued = authority.issue(uris=[stranger], names=["localhost"], common_name="someone")

        error = await refused(port, installed(issued), metadata=bearer())

        assert stranger == from_rpc_error(error).metadata["caller"]

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
