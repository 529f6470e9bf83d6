"""How often one may ask for links and try them: per address, per client and overall."""

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import timedelta

from auth_svc.ports import Clock, Counters
from mesh.chassis.errors import RateLimitedError


@dataclass(frozen=True)
class Limit:
    """At most ``hits`` within ``window``."""

    name: str
    hits: int
    window: timedelta


LINKS_PER_ADDRESS = Limit("links per address", 5, timedelta(minutes=15))
LINKS_PER_CLIENT = Limit("links per client", 60, timedelta(minutes=10))
"""A client may be a whole laboratory behind one address."""
LINKS_OVERALL = Limit("links overall", 600, timedelta(minutes=10))
LOG_INS_PER_CLIENT = Limit("log-ins per client", 200, timedelta(minutes=10))


class Limits:
    """Refuses what happens too often; ``off`` lets everything pass."""

    def __init__(self, counters: Counters, clock: Clock, *, off: bool = False) -> None:
        self._counters = counters
        self._clock = clock
        self._off = off

    async def before_link(self, address: str, client: str) -> None:
        """
        Count a wish for a link; what one limit refuses does not count for those after it.

        Raises:
            RateLimitedError: One limit is reached; says when to come back.
        """
        await self._count(LINKS_PER_CLIENT, network(client))
        await self._count(LINKS_PER_ADDRESS, address)
        await self._count(LINKS_OVERALL, "")

    async def before_log_in(self, client: str) -> None:
        """
        Count an attempt to use a link.

        Raises:
            RateLimitedError: The limit is reached; says when to come back.
        """
        await self._count(LOG_INS_PER_CLIENT, network(client))

    async def _count(self, limit: Limit, subject: str) -> None:
        if self._off:
            return
        now = self._clock()
        # A digest, since addresses have no business in this table.
        key = hashlib.sha256(f"{limit.name}\0{subject}".encode()).hexdigest()
        count = await self._counters.hit(key, now=now, window=limit.window)
        if count.hits > limit.hits:
            raise RateLimitedError(
                f"Too many attempts: {limit.name} are limited to {limit.hits}"
                f" within {limit.window.total_seconds():.0f} s.",
                retry_after=max(timedelta(seconds=1), count.since + limit.window - now),
                limit=limit.name,
            )


def network(client: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
