"""What the rules of Health need from outside."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class NetworkError(Exception):
    """A step of a probe failed; the message is a short phrase for people."""


class UntrustedError(NetworkError):
    """The handshake failed only because the certificate is not trusted for the host."""


class PartDownError(Exception):
    """A part of the mesh cannot serve; the message is a sentence for people."""


@dataclass(frozen=True)
class Certificate:
    """What a host's certificate says; names may be empty, times are in UTC."""

    subject_cn: str
    issuer_cn: str
    valid_from: datetime
    valid_to: datetime
    fingerprint256: str
    """Upper-case hexadecimal with colons."""


@dataclass(frozen=True)
class Handshake:
    """What a completed TLS handshake agreed on; ``alpn`` is None when nothing."""

    protocol: str
    alpn: str | None
    certificate: Certificate


class Connection(Protocol):
    """One TCP connection."""

    async def handshake(self, host: str, *, verify: bool) -> Handshake:
        """
        Do the TLS handshake, once.

        Args:
            host: The name asked for (SNI) and, with *verify*, looked for in the certificate.
            verify: Whether an untrusted certificate ends the handshake.

        Raises:
            UntrustedError: The certificate is not trusted for *host*.
            NetworkError: Anything else went wrong.
        """
        ...

    def close(self) -> None:
        """Drop the connection."""
        ...


class Network(Protocol):
    """The network as a probe sees it."""

    async def resolve(self, host: str) -> tuple[str, ...]:
        """
        Return the addresses of *host*, best first, never none.

        Raises:
            NetworkError: The name has no address.
        """
        ...

    async def connect(self, address: str, port: int) -> Connection:
        """
        Connect to exactly this address, without another look-up.

        Raises:
            NetworkError: Nobody answers there.
        """
        ...


Check = Callable[[], Awaitable[None]]
"""Returns when a part serves; raises PartDownError when it does not."""
