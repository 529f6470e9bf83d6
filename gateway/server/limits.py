"""Limits of event streams: per client address, per session and in total."""

import ipaddress
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from mesh.chassis.errors import RateLimitedError, UnavailableError
from mesh.chassis.telemetry.metrics import LIMIT_REFUSALS

RETRY_AFTER = timedelta(seconds=5)


class StreamLimits:
    """Counts open event streams and refuses those above a limit."""

    def __init__(self, *, per_client: int, per_session: int, total: int) -> None:
        """
        Set the limits.

        Args:
            per_client: Streams without a session of one client; an empty name is not counted.
            per_session: Streams of one session secret.
            total: Streams of this process.
        """
        self._per_client = per_client
        self._per_session = per_session
        self._total = total
        self._open: Counter[tuple[str, str]] = Counter()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def acquire(self, client: str, session: str) -> Callable[[], None]:
        """
        Count one more stream; returns what releases it, once.

        Raises:
            RateLimitedError: The client or the session has too many.
            UnavailableError: This process has too many.
        """
        for kind, name, limit in (
            ("client", client, self._per_client),
            ("session", session, self._per_session),
        ):
            if name and self._open[kind, name] >= limit:
                LIMIT_REFUSALS.labels(f"streams_per_{kind}").inc()
                raise RateLimitedError(
                    f"There are {limit} event streams open; close one first.",
                    retry_after=RETRY_AFTER,
                )
        if self._count >= self._total:
            LIMIT_REFUSALS.labels("streams_total").inc()
            raise UnavailableError("Too many event streams are open.", retry_after=RETRY_AFTER)
        names = [("client", client)] * bool(client) + [("session", session)] * bool(session)
        self._open.update(names)
        self._count += 1
        released = False

        def release() -> None:
            nonlocal released
            if released:
                return
            released = True
            self._count -= 1
            for name in names:
                self._open[name] -= 1
                if not self._open[name]:
                    del self._open[name]

        return release


def client_network(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
