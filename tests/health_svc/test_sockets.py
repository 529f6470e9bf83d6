"""The real network, on loopback, with certificates made for the test."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from health_svc.ports import NetworkError
from health_svc.probes import Probe, Prober
from health_svc.sockets import Sockets, summary
from mesh.chassis.testing import free_port
from mesh.local.pki.certificate_authority import CertificateAuthority

SHORT = timedelta(milliseconds=200)


@contextlib.asynccontextmanager
async def tls_server(
    authority: CertificateAuthority, folder: Path, *, name: str = "localhost", expired: bool = False
) -> AsyncIterator[int]:
    """Serve TLS on loopback with a certificate for *name*; yields the port."""
    issued = authority.issue(
        uris=[],
        names=[name],
        common_name="Test host",
        lifetime=timedelta(days=1),
        not_before=datetime.now(UTC) - timedelta(days=3 if expired else 0, minutes=1),
    )
    (folder / "host.pem").write_bytes(issued.chain + issued.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "host.pem")
    context.set_alpn_protocols(["h2"])
    async with plain_server(context) as port:
        yield port


@contextlib.asynccontextmanager
async def plain_server(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Accept connections on loopback and stay silent; yields the port."""

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                await reader.read()
        finally:
            writer.close()

    port = free_port()
    server = await asyncio.start_server(hold, "127.0.0.1", port, ssl=context)
    async with server:
        yield port


async def probe(port: int, authority: CertificateAuthority, timeout: timedelta = SHORT) -> Probe:
    network = Sockets(trust=authority.pem().decode())
    prober = Prober(network, frozenset({"localhost"}), allow_private=True)
    return await prober.probe("localhost", port, timeout=max(timeout, SHORT))


LONG = timedelta(seconds=5)


class TestSockets:
    async def test_trusted(self, authority: CertificateAuthority, tmp_path: Path) -> None:
        """A host with a trusted certificate is online and authorized; all fields are set."""
        async with tls_server(authority, tmp_path) as port:
            found = await probe(port, authority, LONG)

        assert found.online
        assert found.tls.authorized
        assert found.tls.error is None
        assert found.tcp.latency_ms is not None
        assert found.tls.latency_ms is not None
        assert found.tls.handshake is not None
        assert ("TLSv1.3", "h2") == (found.tls.handshake.protocol, found.tls.handshake.alpn)
        certificate = found.tls.handshake.certificate
        assert "Test host" == certificate.subject_cn
        assert certificate.issuer_cn.startswith("AMARRE root")
        assert certificate.valid_from < datetime.now(UTC) < certificate.valid_to
        assert 95 == len(certificate.fingerprint256)

    async def test_other_authority(self, authority: CertificateAuthority, tmp_path: Path) -> None:
        """A certificate of an untrusted authority leaves the host online, not authorized."""
        async with tls_server(CertificateAuthority.create(), tmp_path) as port:
            found = await probe(port, authority, LONG)

        assert found.online
        assert not found.tls.authorized
        assert found.tls.error
        assert found.tls.handshake is not None

    async def test_other_name(self, authority: CertificateAuthority, tmp_path: Path) -> None:
        """A trusted certificate for another name is not authorized."""
        async with tls_server(authority, tmp_path, name="other.example.org") as port:
            found = await probe(port, authority, LONG)

        assert found.online
        assert not found.tls.authorized
        assert "mismatch" in str(found.tls.error)

    async def test_expired(self, authority: CertificateAuthority, tmp_path: Path) -> None:
        """An expired certificate is not authorized and its expiry is shown."""
        async with tls_server(authority, tmp_path, expired=True) as port:
            found = await probe(port, authority, LONG)

        assert not found.tls.authorized
        assert "expired" in str(found.tls.error)
        assert found.tls.handshake is not None
        assert found.tls.handshake.certificate.valid_to < datetime.now(UTC)

    async def test_refused(self, authority: CertificateAuthority) -> None:
        """A closed port is offline at the TCP step; the error does not name the address."""
        found = await probe(free_port(), authority, LONG)

        assert not found.tcp.ok
        assert "connect" in str(found.tcp.error)
        assert "127.0.0.1" not in str(found.tcp.error)

    async def test_silent(self, authority: CertificateAuthority) -> None:
        """A host that accepts connections and then stays silent is offline at the TLS step."""
        async with plain_server() as port:
            found = await probe(port, authority)

        assert found.tcp.ok
        assert not found.online
        assert "timed out" == found.tls.error

    async def test_unknown_name(self) -> None:
        """A name that cannot exist has no address."""
        with pytest.raises(NetworkError, match="no address"):
            await Sockets().resolve("nothing.invalid")

    def test_no_certificate(self) -> None:
        """An unreadable certificate is a network error."""
        with pytest.raises(NetworkError):
            summary(b"\x30\x00")
