"""Interfaces that the rules of the health service depend on."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class NetworkError(Exception):
    """A step of a probe failed; the message is a short phrase for people."""


class UntrustedError(NetworkError):
    """The handshake failed only because the certificate is not trusted for the host."""


class PartDownError(Exception):
    """A part of the mesh is unhealthy; the message is a sentence for people."""


@dataclass(frozen=True)
class Certificate:
    """Summary of a host's certificate; names may be empty, times are in UTC."""

    subject_cn: str
    issuer_cn: str
    valid_from: datetime
    valid_to: datetime
    fingerprint256: str
    """Upper-case hexadecimal with colons."""


@dataclass(frozen=True)
class Handshake:
    """Result of a TLS handshake; ``alpn`` is None when none was negotiated."""

    protocol: str
    alpn: str | None
    certificate: Certificate


class Connection(Protocol):
    """One TCP connection."""

    async def handshake(self, host: str, *, verify: bool) -> Handshake:
        """Perform the TLS handshake, once.

        Args:
            host: The name sent as SNI and, with *verify*, required in the certificate.
            verify: Whether an untrusted certificate fails the handshake.

        Raises:
            UntrustedError: The certificate is not trusted for *host*.
            NetworkError: The handshake failed otherwise.
        """
        ...

    def close(self) -> None:
        """Drop the connection."""
        ...


class Network(Protocol):
    """Name resolution and connections, as a probe needs them."""

    async def resolve(self, host: str) -> tuple[str, ...]:
        """Return the addresses of *host*, best first, at least one.

        Raises:
            NetworkError: The name has no address.
        """
        ...

    async def connect(self, address: str, port: int) -> Connection:
        """Connect to exactly this address, without resolving again.

        Raises:
            NetworkError: The connection failed.
        """
        ...


Check = Callable[[], Awaitable[None]]
"""Returns when a part is healthy; raises PartDownError otherwise."""
