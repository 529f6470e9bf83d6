"""Client certificates that TLS accepts but a workload must not use.

Source: SPIFFE X.509-SVID, sections 4 and 5; RFC 5280, section 4.2.1.9.
"""

import asyncio
import datetime as dt
import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest
from amarre.health.v1 import health_service_pb2 as pb
from amarre.health.v1 import health_service_pb2_grpc as rpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from mesh.chassis.credentials.peer_certificates import is_acceptable
from mesh.chassis.credentials.tls import SvidFilesError
from mesh.chassis.testing import connected, served
from mesh.local.pki.certificate_authority import CertificateAuthority, Issued, install

IDENTITY = "spiffe://amarre.local/ns/amarre/sa/gateway"
P256 = ec.generate_private_key(ec.SECP256R1())


def certificate(
    authority: CertificateAuthority,
    *,
    key: Any = P256,
    ca: bool = False,
    path_length: int | None = None,
    signs: bool = False,
) -> bytes:
    """Return a certificate of the gateway's identity, signed by *authority*, as PEM."""
    now = dt.datetime.now(dt.UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "encipher_only", "decipher_only"),
        False,
    )  # fmt: skip
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway workload")]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca, path_length), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=signs, crl_sign=signs, **usage),
            critical=True,
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(IDENTITY)]), critical=False
        )
        .sign(authority._key, SHA256())
    )
    return made.public_bytes(Encoding.PEM)


class TestLeaf:
    def test_svid(self, authority: CertificateAuthority) -> None:
        """The certificates issued by the mesh are accepted."""
        assert is_acceptable(authority.issue_svid("gateway").chain, b"")
        assert is_acceptable(certificate(authority), b"")

    @pytest.mark.parametrize("bits", [1024, 2048])
    def test_rsa(self, authority: CertificateAuthority, bits: int) -> None:
        """RSA keys below 2048 bits are rejected."""
        key = rsa.generate_private_key(65_537, bits)
        assert is_acceptable(certificate(authority, key=key), b"") is (bits >= 2048)

    def test_ca(self, authority: CertificateAuthority) -> None:
        """A CA certificate, or one that may sign, is not a valid leaf."""
        assert not is_acceptable(certificate(authority, ca=True), b"")
        assert not is_acceptable(certificate(authority, signs=True), b"")

    def test_nonsense(self) -> None:
        """Bytes that are not a certificate are rejected without an exception."""
        assert not is_acceptable(b"nonsense", b"")
        assert not is_acceptable(b"", b"")


class TestChain:
    def test_path_length(self, authority: CertificateAuthority) -> None:
        """The root has path length 0: it issues workload certificates and no other CA."""
        leaf = certificate(authority)
        root = authority.certificate.public_bytes(Encoding.PEM)
        assert is_acceptable(leaf, leaf)
        assert is_acceptable(leaf, leaf + root)
        for path_length in (None, 0, 1):
            issuer = certificate(authority, ca=True, signs=True, path_length=path_length)
            assert not is_acceptable(leaf, issuer)
            assert not is_acceptable(leaf, leaf + issuer)
            assert not is_acceptable(leaf, leaf + issuer + root)

    def test_weak_issuer(self) -> None:
        """A root with a weak key does not make certificates acceptable."""
        key = rsa.generate_private_key(65_537, 1024)
        weak = certificate(CertificateAuthority.create(), key=key, ca=True, signs=True)
        assert not is_acceptable(weak, weak)

    def test_leaf_as_issuer(self, authority: CertificateAuthority) -> None:
        """A certificate that is not a CA cannot issue certificates."""
        leaf = certificate(authority)
        assert not is_acceptable(leaf, leaf + certificate(authority))


class Health(rpc.HealthServiceServicer):
    """A servicer that responds immediately."""

    async def GetStatus(self, request: object, context: object) -> pb.GetStatusResponse:
        return pb.GetStatusResponse()


def _register(server: Any) -> None:
    rpc.add_HealthServiceServicer_to_server(Health(), server)


CASES = ("right", "CA", "signs", "RSA 1024", "RSA 1536", "below path length 0")


def _made(authority: CertificateAuthority, case: str) -> Issued:
    """Return a certificate of the *case*, with its key."""
    bits = int(case.removeprefix("RSA ")) if case.startswith("RSA") else 0
    key: Any = rsa.generate_private_key(65_537, bits) if bits else P256
    signs = case in {"CA", "signs"}
    chain = certificate(authority, key=key, ca=case == "CA", signs=signs)
    if case.startswith("below"):
        issuer = certificate(authority, ca=True, signs=True)
        last = CertificateAuthority(x509.load_pem_x509_certificate(issuer), P256)
        chain = certificate(last) + issuer
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Issued(chain, text, authority.certificate.public_bytes(Encoding.PEM))


@pytest.mark.parametrize("case", CASES)
async def test_over_tls(
    svids: Path, tmp_path: Path, authority: CertificateAuthority, case: str
) -> None:
    """A caller with the right identity but an unacceptable certificate is rejected."""
    install(_made(authority, case), tmp_path / "gateway")

    async with (
        served(_register, svids / "health") as port,
        connected("health", port, tmp_path / "gateway", rpc.HealthServiceStub) as stub,
    ):
        if case == "right":
            await stub.GetStatus(pb.GetStatusRequest())
            return
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetStatus(pb.GetStatusRequest())
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("case", CASES)
async def test_own(tmp_path: Path, authority: CertificateAuthority, case: str) -> None:
    """A server does not start with a certificate with which a caller would be rejected."""
    install(_made(authority, case), tmp_path / "health")

    if case == "right":
        async with served(_register, tmp_path / "health"):
            return
    with pytest.raises(SvidFilesError, match=r"AMARRE_SVID_DIR.*must not be used.*amarre certs"):
        async with served(_register, tmp_path / "health"):
            pass


@pytest.mark.parametrize("case", CASES[1:])
async def test_own_later(
    tmp_path: Path,
    authority: CertificateAuthority,
    caplog: pytest.LogCaptureFixture,
    case: str,
) -> None:
    """
    A running server ignores such a certificate, logs why, and presents the one that it has.

    Fails without the check: gRPC clients accept all of these from a server.
    """
    first = authority.issue_svid("health")
    install(first, tmp_path / "health")
    async with served(_register, tmp_path / "health") as port:
        install(_made(authority, case), tmp_path / "health")
        presented = [await asyncio.to_thread(_presented, port) for _ in range(2)]
    assert {first.chain.decode()} == set(presented)
    assert 1 == caplog.text.count("the certificate is not replaced: AMARRE_SVID_DIR")


def _presented(port: int) -> str:
    """Return the certificate of the server on *port*, PEM."""
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=5)
