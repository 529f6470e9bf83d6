"""Limits of sign-up and log-in: per address, per client and overall."""

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from auth_svc.errors import InvalidCredentialsError
from auth_svc.sign_in.rate_limits import Limit
from mesh.chassis.errors import RateLimitedError
from tests.auth_svc.harness import Harness, MailedLink
from tests.auth_svc.sign_in.test_magic_links import sign_up
from tests.limits import refusals


def small(harness: Harness) -> Harness:
    """Return Auth with an overall limit of 20 links and a reserve of 10."""
    window = timedelta(minutes=10)
    links = replace(
        harness.link_limits,
        overall=Limit("links overall", 20, window),
        reserved=Limit("r", 10, window),
    )
    return Harness(harness.database, harness.clock, harness.directory, link_limits=links)


def limited() -> float:
    """Return the number of requests that the overall limit rejected or sent to the reserve."""
    labels = {"limit": "links overall"}
    return REGISTRY.get_sample_value("amarre_auth_rate_limited_total", labels) or 0


class TestLimits:
    async def test_per_address(self, harness: Harness) -> None:
        """Of 300 requests for one address, at most 5 are mailed; the others get a retry delay."""
        refused = []
        for number in range(300):
            try:
                await sign_up(harness, "ada@example.org", client=f"198.51.{number}.1")
            except RateLimitedError as error:
                refused.append(error)

        assert 5 == len(harness.mailer.sent)
        assert 295 == len(refused)
        assert all(
            error.retry_after is not None
            and timedelta(0) < error.retry_after <= timedelta(minutes=15)
            for error in refused
        )

    async def test_what_is_refused_counts_nowhere(self, harness: Harness) -> None:
        """A flood for one address does not use up the limits of others behind the same client."""
        for _ in range(100):
            with contextlib.suppress(RateLimitedError):
                await sign_up(harness, "ada@example.org")

        await sign_up(harness, "bob@example.org")

        assert 6 == len(harness.mailer.sent)

    async def test_parallel_wishes(self, harness: Harness) -> None:
        """Of 40 concurrent requests for one address, at most 5 are mailed, across replicas."""
        await asyncio.gather(
            *(sign_up(harness, "ada@example.org", client=f"10.0.{n}.1") for n in range(40)),
            return_exceptions=True,
        )

        assert 5 == len(harness.mailer.sent)

    async def test_limit_ends(self, harness: Harness) -> None:
        """After the retry delay, the limit admits one more request."""
        for _ in range(5):
            await sign_up(harness, "ada@example.org")
        with pytest.raises(RateLimitedError) as ei:
            await sign_up(harness, "ada@example.org")
        assert ei.value.retry_after is not None

        harness.clock.advance(ei.value.retry_after)
        await sign_up(harness, "ada@example.org")

        assert 6 == len(harness.mailer.sent)

    @pytest.mark.parametrize(
        "client",
        ["192.0.2.7", "2001:db8:1:2::{n:x}", "::ffff:192.0.2.7", ""],
        ids=["IPv4", "one IPv6 network", "mapped IPv4", "unknown"],
    )
    async def test_per_client(self, harness: Harness, client: str) -> None:
        """
        One client gets 60 links within 10 minutes, for any addresses; others are not affected.
        """
        for number in range(60):
            await sign_up(harness, f"a{number}@example.org", client=client.format(n=number))

        with pytest.raises(RateLimitedError):
            await sign_up(harness, "b@example.org", client=client.format(n=61))
        await sign_up(harness, "b@example.org", client="203.0.113.5")

    async def test_overall(self, harness: Harness) -> None:
        """All clients together get no more than the overall limit and the reserve."""
        harness = small(harness)
        granted = 0
        for number in range(100):
            with contextlib.suppress(RateLimitedError):
                await sign_up(harness, f"a{number}@example.org", client=f"10.0.{number}.1")
                granted += 1

        assert 20 + 10 == granted

    async def test_flood_leaves_a_reserve(self, harness: Harness) -> None:
        """
        Exhausting the overall limit from some networks does not affect sign-up from others, mailed
        links, sessions and passkeys.
        """
        harness = small(harness)
        link = await harness.link("early@example.org")
        before = limited()
        for number in range(200):
            with contextlib.suppress(RateLimitedError):
                await sign_up(harness, f"a{number}@example.org", client=f"10.0.{number % 3}.1")
        assert limited() > before

        await sign_up(harness, "late@example.org", client="203.0.113.5")
        secret = await harness.use(link)
        await harness.passkeys.begin_log_in("203.0.113.5")
        assert await harness.directory.find_session(secret) is not None

    async def test_overall_refills_evenly(self, harness: Harness) -> None:
        """After a flood, links become available one by one, not all after the window."""
        harness = small(harness)
        for number in range(40):
            with contextlib.suppress(RateLimitedError):
                await sign_up(harness, f"a{number}@example.org", client=f"10.0.{number}.1")

        harness.clock.advance(timedelta(seconds=60))
        await sign_up(harness, "b@example.org", client="10.0.0.1")
        await sign_up(harness, "c@example.org", client="10.0.20.1")

    async def test_log_ins_per_client(self, harness: Harness) -> None:
        """Of 300 guesses from one client, at most 200 are checked."""
        before = refusals("log_ins_per_client")
        outcomes = {InvalidCredentialsError: 0, RateLimitedError: 0}
        for number in range(300):
            with pytest.raises(tuple(outcomes)) as ei:
                await harness.use(MailedLink("ab", f"{number:064x}"))
            outcomes[ei.type] += 1

        assert {InvalidCredentialsError: 200, RateLimitedError: 100} == outcomes
        assert before + 100 == refusals("log_ins_per_client")

    async def test_lifted(self, harness: Harness) -> None:
        """With limits off, everything is admitted."""
        free = Harness(harness.database, harness.clock, harness.directory, limited=False)
        for _ in range(20):
            await sign_up(free, "ada@example.org")

        assert 20 == len(free.mailer.sent)
