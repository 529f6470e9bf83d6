"""Network adapter: asyncio sockets and TLS."""

import asyncio
import hashlib
import socket
import ssl

from cryptography import x509
from cryptography.x509.oid import NameOID

from health_svc.ports import Certificate, Handshake, NetworkError, UntrustedError

ALPN = ("h2", "http/1.1")


class Sockets:
    """The ``Network`` port over asyncio.

    Args:
        trust: PEM certificates to trust; None for the system's.
    """

    def __init__(self, *, trust: str | None = None) -> None:
        self._verified = _context(trust)
        self._unverified = _context(trust)
        self._unverified.check_hostname = False
        self._unverified.verify_mode = ssl.CERT_NONE

    async def resolve(self, host: str) -> tuple[str, ...]:
        """Return the addresses of *host*, in the order preferred by the system."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        except OSError as exc:
            raise NetworkError("the name has no address") from exc
        return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))

    async def connect(self, address: str, port: int) -> "TcpConnection":
        """Connect to *address*; asyncio does not resolve addresses."""
        try:
            reader, writer = await asyncio.open_connection(address, port)
        except OSError as exc:
            raise NetworkError(_phrase(exc)) from exc
        return TcpConnection(reader, writer, self._verified, self._unverified)


class TcpConnection:
    """The ``Connection`` port over an asyncio stream."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        verified: ssl.SSLContext,
        unverified: ssl.SSLContext,
    ) -> None:
        self._reader = reader  # Keeps the stream open: collecting the reader would close it.
        self._writer = writer
        self._contexts = {True: verified, False: unverified}

    async def handshake(self, host: str, *, verify: bool) -> Handshake:
        """Perform the TLS handshake; see ``Connection``."""
        try:
            await self._writer.start_tls(self._contexts[verify], server_hostname=host)
        except ssl.SSLCertVerificationError as exc:
            raise UntrustedError(exc.verify_message) from exc
        except OSError as exc:  # ssl.SSLError is one.
            raise NetworkError(_phrase(exc)) from exc
        tls: ssl.SSLObject = self._writer.get_extra_info("ssl_object")
        return Handshake(
            protocol=tls.version() or "",
            alpn=tls.selected_alpn_protocol(),
            certificate=summary(tls.getpeercert(binary_form=True) or b""),
        )

    def close(self) -> None:
        """Drop the connection without a TLS close."""
        self._writer.transport.abort()


def summary(der: bytes) -> Certificate:
    """Return the summary of a certificate.

    Raises:
        NetworkError: *der* is not a certificate.
    """
    try:
        parsed = x509.load_der_x509_certificate(der)
        digest = hashlib.sha256(der).hexdigest().upper()
        return Certificate(
            subject_cn=_common_name(parsed.subject),
            issuer_cn=_common_name(parsed.issuer),
            valid_from=parsed.not_valid_before_utc,
            valid_to=parsed.not_valid_after_utc,
            fingerprint256=":".join(digest[i : i + 2] for i in range(0, len(digest), 2)),
        )
    except ValueError as exc:
        raise NetworkError("the certificate cannot be read") from exc


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value)[:500] if found else ""


def _context(trust: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=trust)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(ALPN))
    return context


def _phrase(error: OSError) -> str:
    """Return the cause without addresses, which would only help an attacker."""
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'the peer closed the connection'}"
    return (error.strerror or type(error).__name__).partition("(")[0].strip().lower()
