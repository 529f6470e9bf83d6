"""Client certificates that TLS verifies but a workload must not use, at a real Envoy.

Source: SPIFFE X.509-SVID, sections 4 and 5; RFC 5280, section 4.2.1.9.
"""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1.survey_service_pb2_grpc import SurveyServiceStub
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mesh.local.pki.certificate_authority import CertificateAuthority, Issued, install
from tests.mesh.chassis.credentials.test_certificates import P256, certificate
from tests.sidecars.support.bed import Bed, bearer
from tests.sidecars.support.surveys import Surveys

Made = tuple[bytes, Any]
"""A chain, leaf first, and the key of the leaf."""


def _below(authority: CertificateAuthority, key: Any = P256, **options: Any) -> Made:
    """Return a leaf below an intermediate CA below *authority*."""
    issuer = certificate(authority, key=key, ca=True, signs=True, **options)
    intermediate = CertificateAuthority(x509.load_pem_x509_certificate(issuer), key)
    return certificate(intermediate) + issuer, P256


def _rsa(bits: int) -> Any:
    return rsa.generate_private_key(65_537, bits)


def _leaf(authority: CertificateAuthority, key: Any = P256, **options: Any) -> Made:
    return certificate(authority, key=key, **options), key


async def _outcome(bed: Bed, made: Made) -> grpc.StatusCode:
    """Return the code of a call with the certificate *made*."""
    chain, key = made
    sidecar = await bed.service(Surveys())
    folder = bed.folder / "client"
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    install(Issued(chain, text, bed.authority.pem()), folder, bundle=bed.authority.pem())
    async with bed.directly(sidecar, folder) as channel:
        try:
            await SurveyServiceStub(channel).ListRequests(
                pb.ListRequestsRequest(), timeout=3, metadata=bearer()
            )
        except grpc.aio.AioRpcError as exc:
            return exc.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(_leaf, id="P-256"),
        pytest.param(lambda a: _leaf(a, ec.generate_private_key(ec.SECP384R1())), id="P-384"),
        pytest.param(lambda a: _leaf(a, _rsa(2048)), id="RSA 2048"),
    ],
)
async def test_accepted(bed: Bed, make: Callable[[CertificateAuthority], Made]) -> None:
    """A leaf with a strong key that cannot sign is accepted."""
    assert grpc.StatusCode.OK == await _outcome(bed, make(bed.authority))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda a: _leaf(a, _rsa(1024)), id="RSA 1024"),
        pytest.param(lambda a: _leaf(a, _rsa(1536)), id="RSA 1536"),
        pytest.param(lambda a: _leaf(a, ca=True), id="CA"),
        pytest.param(lambda a: _leaf(a, ca=True, signs=True), id="CA that signs"),
        pytest.param(lambda a: _leaf(a, signs=True), id="signs"),
        pytest.param(_below, id="below path length 0"),
        pytest.param(lambda a: _below(a, _rsa(1024)), id="below RSA 1024"),
    ],
)
async def test_refused(bed: Bed, make: Callable[[CertificateAuthority], Made]) -> None:
    """
    A weak key, a leaf that may sign, or a chain that is too long is refused.

    Envoy refuses the chains and RSA 1024 in the handshake, the service the rest.
    """
    code = await _outcome(bed, make(bed.authority))
    assert code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED}
