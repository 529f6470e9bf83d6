"""An in-memory network for tests of the rules."""

import asyncio
from datetime import UTC, datetime

from health_svc.ports import Certificate, Handshake, NetworkError, UntrustedError

CERTIFICATE = Certificate(
    subject_cn="portal.example.org",
    issuer_cn="Test root",
    valid_from=datetime(2026, 1, 1, tzinfo=UTC),
    valid_to=datetime(2027, 1, 1, tzinfo=UTC),
    fingerprint256="AB:CD",
)


class FakeNetwork:
    """The ``Network`` port with a table.

    Names lead to addresses; an address answers when it is among *alive*, hangs when among
    *hanging*, and shows a certificate that nobody trusts when among *untrusted*.
    """

    def __init__(
        self,
        names: dict[str, tuple[str, ...]],
        *,
        alive: frozenset[str] = frozenset(),
        hanging: frozenset[str] = frozenset(),
        untrusted: frozenset[str] = frozenset(),
    ) -> None:
        self.names = names
        self.alive = alive
        self.hanging = hanging
        self.untrusted = untrusted
        self.lookups: list[str] = []
        self.connections: list[FakeConnection] = []

    async def resolve(self, host: str) -> tuple[str, ...]:
        """Return the addresses of the table."""
        self.lookups.append(host)
        if host not in self.names:
            raise NetworkError("the name has no address")
        return self.names[host]

    async def connect(self, address: str, port: int) -> "FakeConnection":
        """Connect if the address is reachable."""
        if address in self.hanging:
            await asyncio.Event().wait()
        if address not in self.alive:
            raise NetworkError("connection refused")
        connection = FakeConnection(address, trusted=address not in self.untrusted)
        self.connections.append(connection)
        return connection


class FakeConnection:
    """In-memory ``Connection``."""

    def __init__(self, address: str, *, trusted: bool) -> None:
        self.address = address
        self.trusted = trusted
        self.closed = False

    async def handshake(self, host: str, *, verify: bool) -> Handshake:
        """Succeed unless the certificate is verified and untrusted."""
        if verify and not self.trusted:
            raise UntrustedError("self-signed certificate")
        return Handshake("TLSv1.3", "h2", CERTIFICATE)

    def close(self) -> None:
        """Record that it was closed."""
        self.closed = True
