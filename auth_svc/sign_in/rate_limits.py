"""How often one may ask for links and try them: per address, per client and overall."""

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import timedelta

from auth_svc.ports import Allowance, Clock, Counters
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


class RateLimits:
    """Refuses what happens too often; ``off`` lets everything pass."""

    def __init__(self, counters: Counters, clock: Clock, *, off: bool = False) -> None:
        self._counters = counters
        self._clock = clock
        self._off = off

    async def count_link_request(self, address: str, client: str) -> None:
        """Count a wish for a link; a wish that one limit refuses counts for none of them.

        Raises:
            RateLimitedError: One limit is reached; says when to come back.
        """
        await self._count(
            (LINKS_PER_CLIENT, network(client)), (LINKS_PER_ADDRESS, address), (LINKS_OVERALL, "")
        )

    async def count_login_attempt(self, client: str) -> None:
        """Count an attempt to use a link or a passkey.

        Raises:
            RateLimitedError: The limit is reached; says when to come back.
        """
        await self._count((LOG_INS_PER_CLIENT, network(client)))

    async def _count(self, *limits: tuple[Limit, str]) -> None:
        if self._off:
            return
        now = self._clock()
        by_key = {_key(limit, subject): limit for limit, subject in limits}
        allowances = [Allowance(key, limit.hits, limit.window) for key, limit in by_key.items()]
        exceeded = await self._counters.count(allowances, now=now)
        if exceeded is not None:
            limit = by_key[exceeded.allowance.key]
            raise RateLimitedError(
                f"Too many attempts: {limit.name} are limited to {limit.hits}"
                f" within {limit.window.total_seconds():.0f} s.",
                retry_after=max(timedelta(seconds=1), exceeded.since + limit.window - now),
                limit=limit.name,
            )


def _key(limit: Limit, subject: str) -> str:
    # A digest, since addresses have no business in the table of counters.
    return hashlib.sha256(f"{limit.name}\0{subject}".encode()).hexdigest()


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
