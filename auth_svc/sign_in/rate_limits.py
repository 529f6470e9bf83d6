"""Rate limits on link requests and sign-in attempts: per address, per client and overall."""

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from datetime import timedelta

from auth_svc.metrics import RATE_LIMITED
from auth_svc.ports import Allowance, Clock, Counters, Exceeded
from mesh.chassis.errors import RateLimitedError
from mesh.chassis.telemetry.metrics import LIMIT_REFUSALS


@dataclass(frozen=True)
class Limit:
    """A burst of ``hits``, refilled evenly over ``window``; ``name`` is the metric label."""

    name: str
    hits: int
    window: timedelta


@dataclass(frozen=True)
class LinkLimits:
    """
    The limits of link requests and of attempts to log in.

    ``reserved`` and ``reserved_per_client`` reserve links for clients that requested few, so that
    a flood from some networks, which exhausts ``overall``, does not stop sign-up from others.
    """

    per_address: Limit
    per_client: Limit
    """A client may be a whole laboratory behind one IP address."""
    overall: Limit
    reserved: Limit
    reserved_per_client: Limit
    log_ins: Limit


class RateLimits:
    """
    Enforces the limits; ``off`` disables them.

    Using a mailed link, signing in with a passkey, and open sessions never count against the
    limits of link requests.
    """

    def __init__(
        self,
        counters: Counters,
        clock: Clock,
        *,
        links: LinkLimits,
        off: bool = False,
    ) -> None:
        self._counters = counters
        self._clock = clock
        self._links = links
        self._off = off

    async def count_link_request(self, address: str, client: str) -> None:
        """
        Count a request for a link; a request that one limit rejects counts on none of them.

        Raises:
            RateLimitedError: A limit is reached; includes the time to wait.
        """
        links = self._links
        who = ((links.per_client, network(client)), (links.per_address, address))
        exceeded = await self._exceeded(*who, (links.overall, ""))
        if exceeded is None:
            return
        if exceeded[0] is links.overall:
            RATE_LIMITED.labels(links.overall.name).inc()
            reserved = (links.reserved_per_client, network(client)), (links.reserved, "")
            exceeded = await self._exceeded(*who, *reserved)
        self._refuse(exceeded)

    async def count_login_attempt(self, client: str) -> None:
        """
        Count an attempt to use a link or a passkey.

        Raises:
            RateLimitedError: The limit is reached; includes the time to wait.
        """
        self._refuse(await self._exceeded((self._links.log_ins, network(client))))

    async def _exceeded(self, *limits: tuple[Limit, str]) -> tuple[Limit, Exceeded] | None:
        """Count on each limit; if one is reached, count on none and return that one."""
        if self._off:
            return None
        by_key = {_key(limit, subject): limit for limit, subject in limits}
        allowances = [Allowance(key, limit.hits, limit.window) for key, limit in by_key.items()]
        exceeded = await self._counters.count(allowances, now=self._clock())
        return None if exceeded is None else (by_key[exceeded.allowance.key], exceeded)

    def _refuse(self, found: tuple[Limit, Exceeded] | None) -> None:
        if found is None:
            return
        limit, exceeded = found
        RATE_LIMITED.labels(limit.name).inc()
        if limit not in (self._links.overall, self._links.reserved):  # For these: SignUpsLimited.
            LIMIT_REFUSALS.labels(re.sub(r"\W", "_", limit.name)).inc()
        raise RateLimitedError(
            f"Too many attempts: {limit.name} are limited to {limit.hits}"
            f" within {limit.window.total_seconds():.0f} s.",
            retry_after=max(timedelta(seconds=1), exceeded.retry_after),
            limit=limit.name,
        )


def _key(limit: Limit, subject: str) -> str:
    # A digest, so that no address is stored.
    return hashlib.sha256(f"{limit.name}\0{subject}".encode()).hexdigest()


def network(client: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 network of an IPv6 one."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
