"""Rules of probing: allowed hosts, allowed addresses and the result of the two steps.

A name is resolved once and its addresses are checked before any packet is sent; the connection
goes to one of them, which defeats DNS rebinding.
"""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from health_svc.addresses import is_public
from health_svc.errors import HostNotAllowedError, InvalidParametersError
from health_svc.ports import Connection, Handshake, Network, NetworkError, UntrustedError

DEFAULT_TIMEOUT = timedelta(seconds=3)
_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")


@dataclass(frozen=True)
class Step:
    """Result of one step: its latency in milliseconds, or why it failed."""

    ok: bool = False
    latency_ms: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class TlsStep(Step):
    """Result of the handshake; ``authorized``: whether the certificate is trusted."""

    authorized: bool = False
    handshake: Handshake | None = None


@dataclass(frozen=True)
class Probe:
    """Result of a probe."""

    host: str
    port: int
    timeout: timedelta
    tcp: Step
    tls: TlsStep

    @property
    def online(self) -> bool:
        """Return whether both steps completed; the certificate need not be trusted."""
        return self.tcp.ok and self.tls.ok


class Prober:
    """Probes the hosts of an allow-list."""

    def __init__(
        self,
        network: Network,
        allowed_hosts: frozenset[str],
        *,
        allow_private: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Build the prober.

        Args:
            network: Resolves and connects.
            allowed_hosts: Names in lower case, compared whole.
            allow_private: Whether allowed hosts may resolve to non-public addresses.
            clock: Measures the steps, in seconds.
        """
        self._network = network
        self._allowed = allowed_hosts
        self._allow_private = allow_private
        self._clock = clock

    async def probe(
        self,
        host: str,
        port: int,
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
        within: timedelta | None = None,
    ) -> Probe:
        """Probe *host* over TCP and then TLS.

        Args:
            host: The name; case and a final dot are ignored.
            port: The port, already checked.
            timeout: Time limit of each of the two steps.
            within: Time limit of both steps together; None for no limit.

        Returns:
            The result, whether the host is online or not.

        Raises:
            InvalidParametersError: *host* is not a host name.
            HostNotAllowedError: *host* is not on the list, or one of its addresses is not public.
        """
        name = self._allowed_name(host)
        ends_at = self._clock() + (within or 2 * timeout).total_seconds()

        def left() -> float:
            return max(0.0, min(timeout.total_seconds(), ends_at - self._clock()))

        try:
            tcp, address, connection = await self._reach(name, port, seconds=left())
        except (NetworkError, TimeoutError) as exc:
            failed = TlsStep(error="no connection")
            return Probe(host, port, timeout, Step(error=_phrase(exc)), failed)
        try:
            tls = await self._secure(name, address, port, connection, seconds=left())
        finally:
            connection.close()
        return Probe(host, port, timeout, tcp, tls)

    def _allowed_name(self, host: str) -> str:
        name = host.lower().removesuffix(".")
        if not _HOST.fullmatch(name):
            raise InvalidParametersError("host must be a host name, without scheme, port or path.")
        if name not in self._allowed:
            raise HostNotAllowedError(
                "The host is not on the allow-list; an operator adds it to "
                "AMARRE_HEALTH_ALLOWED_HOSTS.",
                host=name,
            )
        return name

    async def _reach(self, name: str, port: int, *, seconds: float) -> tuple[Step, str, Connection]:
        """Resolve *name* once and connect to the first address that accepts."""
        async with asyncio.timeout(seconds):
            addresses = await self._network.resolve(name)
            self._reject_private(name, addresses)
            share = seconds / len(addresses)
            last: Exception = NetworkError("no address")
            for address in addresses:
                started = self._clock()
                try:
                    async with asyncio.timeout(share):
                        connection = await self._network.connect(address, port)
                except (NetworkError, TimeoutError) as exc:
                    last = exc
                else:
                    return Step(ok=True, latency_ms=self._since(started)), address, connection
            raise last

    def _reject_private(self, name: str, addresses: tuple[str, ...]) -> None:
        # One non-public address is enough: whoever controls the name chooses the order.
        if not self._allow_private and not all(map(is_public, addresses)):
            raise HostNotAllowedError(
                "The host resolves to an address that is not public.", host=name
            )

    async def _secure(
        self, name: str, address: str, port: int, connection: Connection, *, seconds: float
    ) -> TlsStep:
        """Perform the handshake; if only trust fails, repeat unverified to read the certificate."""
        started = self._clock()
        try:
            async with asyncio.timeout(seconds):
                try:
                    done = await connection.handshake(name, verify=True)
                    distrust = None
                except UntrustedError as exc:
                    distrust = _phrase(exc)
                    again = await self._network.connect(address, port)
                    started = self._clock()
                    try:
                        done = await again.handshake(name, verify=False)
                    finally:
                        again.close()
        except (NetworkError, TimeoutError) as exc:
            return TlsStep(error=_phrase(exc))
        return TlsStep(
            ok=True,
            latency_ms=self._since(started),
            error=distrust,
            authorized=distrust is None,
            handshake=done,
        )

    def _since(self, started: float) -> float:
        return round((self._clock() - started) * 1000, 2)


def _phrase(error: Exception) -> str:
    return "timed out" if isinstance(error, TimeoutError) else str(error)[:500]
