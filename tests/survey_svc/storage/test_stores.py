"""The contract of every store, on real servers."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from mesh.chassis.errors import UnavailableError
from mesh.chassis.testing import free_port
from survey_svc.ports import Answer, Consent, Reservation, Store
from survey_svc.storage import sql_store
from tests.survey_svc import servers
from tests.survey_svc.world import opened

NOW = datetime(2026, 3, 1, 10, 0, 0, 123000, tzinfo=UTC)
LEASE = timedelta(seconds=12)
DAY = timedelta(hours=24)


@pytest.fixture
def patient_url(store_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a store whose timeouts do not depend on how busy the machine is."""
    monkeypatch.setattr(sql_store, "WAIT_SECONDS", 60)
    if not store_url.startswith("redis"):
        return store_url
    return f"{store_url}?socket_timeout=60&socket_connect_timeout=60"


@pytest.fixture
async def store(patient_url: str) -> AsyncIterator[Store]:
    """A store, shared with the other tests."""
    store = await opened(patient_url)
    yield store
    await store.close()


@pytest.fixture
async def other(patient_url: str) -> AsyncIterator[Store]:
    """The same store, as another replica sees it."""
    store = await opened(patient_url)
    yield store
    await store.close()


def attempt(user: str, *, now: datetime = NOW, key: str = "", given: str = "") -> Reservation:
    """Return a new reservation."""
    return Reservation(
        user=user,
        record=secrets.token_hex(8),
        created_at=now,
        holder=secrets.token_hex(16),
        ends_at=now + LEASE,
        notice="2026-01",
        consented_at=now,
        key=key,
        input=given,
    )


class TestClaim:
    async def test_free(self, store: Store, user: str) -> None:
        """A free reservation is claimed as requested."""
        mine = attempt(user, key="k", given="i")

        claim = await store.claim(mine, NOW)

        assert (mine, None) == (claim.reservation, claim.before)

    async def test_taken(self, store: Store, other: Store, user: str) -> None:
        """A reservation that is taken stays with its holder, on every replica."""
        first = attempt(user, key="k")
        await store.claim(first, NOW)

        claim = await other.claim(attempt(user), NOW + LEASE - timedelta(seconds=1))

        assert (first, None) == (claim.reservation, claim.before)

    async def test_taken_over(self, store: Store, other: Store, user: str) -> None:
        """
        After the holder's lease ends, the next one gets the reservation, with the same record.
        """
        first = attempt(user)
        await store.claim(first, NOW)
        later = NOW + LEASE
        second = attempt(user, now=later, key="k")

        claim = await other.claim(second, later)

        assert replace(second, record=first.record, created_at=NOW) == claim.reservation
        assert first == claim.before

    async def test_let_go(self, store: Store, user: str) -> None:
        """A reservation whose lease was ended can be claimed at once, with the same record."""
        first = attempt(user)
        await store.claim(first, NOW)
        await store.let_go(first, NOW)

        claim = await store.claim(attempt(user), NOW)

        assert first.record == claim.reservation.record
        assert claim.before is not None

    async def test_let_go_too_late(self, store: Store, user: str) -> None:
        """An attempt that lost the reservation cannot release it."""
        first = attempt(user)
        await store.claim(first, NOW)
        second = attempt(user, now=NOW + LEASE)
        await store.claim(second, NOW + LEASE)
        await store.let_go(first, NOW)

        claim = await store.claim(attempt(user), NOW + LEASE)

        assert second.holder == claim.reservation.holder

    async def test_hundred_at_once(self, store: Store, other: Store, user: str) -> None:
        """Of a hundred concurrent claims on two replicas, one succeeds."""
        wishes = [attempt(user) for _ in range(100)]

        claims = await asyncio.gather(
            *((store, other)[at % 2].claim(mine, NOW) for at, mine in enumerate(wishes))
        )

        winners = {claim.reservation.holder for claim in claims}
        assert 1 == len(winners)
        assert 1 == sum(
            claim.reservation == mine for claim, mine in zip(claims, wishes, strict=True)
        )

    async def test_hundred_take_over(self, store: Store, other: Store, user: str) -> None:
        """Of a hundred claims of an abandoned reservation, one takes it over."""
        first = attempt(user)
        await store.claim(first, NOW)
        later = NOW + LEASE
        wishes = [attempt(user, now=later) for _ in range(100)]

        claims = await asyncio.gather(
            *((store, other)[at % 2].claim(mine, later) for at, mine in enumerate(wishes))
        )

        assert 1 == len({claim.reservation.holder for claim in claims})
        assert 1 == sum(claim.before is not None for claim in claims)
        assert {first.record} == {claim.reservation.record for claim in claims}


class TestFinish:
    async def test_frees_and_remembers(self, store: Store, other: Store, user: str) -> None:
        """A completed creation releases the reservation, stores its response and the consent."""
        mine = attempt(user, key="k", given="i")
        await store.claim(mine, NOW)
        await store.finish(mine, remember=DAY)

        assert Answer(mine.record, "i") == await other.answered(user, "k", NOW)
        assert Consent(user, NOW, "2026-01") == await other.consent(mine.record)
        assert (await other.claim(attempt(user), NOW)).before is None

    async def test_without_key(self, store: Store, user: str) -> None:
        """Without a key no response is stored."""
        mine = attempt(user)
        await store.claim(mine, NOW)
        await store.finish(mine, remember=DAY)

        assert await store.answered(user, "", NOW) is None

    async def test_twice(self, store: Store, user: str) -> None:
        """Completing again has no effect, not even on a reservation claimed since."""
        mine = attempt(user, key="k")
        await store.claim(mine, NOW)
        await store.finish(mine, remember=DAY)
        second = attempt(user)
        await store.claim(second, NOW)
        await store.finish(replace(mine, notice="other"), remember=DAY)

        assert second == (await store.claim(attempt(user), NOW)).reservation
        assert Consent(user, NOW, "2026-01") == await store.consent(mine.record)

    async def test_forgotten_after_a_day(self, store: Store, user: str) -> None:
        """After 24 hours a key can be reused."""
        mine = attempt(user, key="k")
        await store.claim(mine, NOW)
        await store.finish(mine, remember=DAY)

        assert await store.answered(user, "k", NOW + DAY - timedelta(seconds=1)) is not None
        assert await store.answered(user, "k", NOW + DAY) is None

    async def test_keys_are_the_users(self, store: Store, user: str) -> None:
        """The same key of another user is another key."""
        mine = attempt(user, key="k")
        await store.claim(mine, NOW)
        await store.finish(mine, remember=DAY)

        assert await store.answered(f"{user}x", "k", NOW) is None


class TestAbandoned:
    async def test_found(self, store: Store, other: Store, user: str) -> None:
        """Reservations with expired leases are found; those in use or released are not."""
        gone, here, done = attempt(user), attempt(f"{user}h", now=NOW + LEASE), attempt(f"{user}d")
        for mine in (gone, here, done):
            await store.claim(mine, NOW)
        await store.drop(done)

        found = [r for r in await other.abandoned(NOW + LEASE) if r.user.startswith(user)]

        assert [gone] == found

    async def test_drop(self, store: Store, user: str) -> None:
        """A released reservation is free, and one of another attempt cannot be released."""
        mine = attempt(user)
        await store.claim(mine, NOW)
        await store.drop(attempt(user))
        assert mine == (await store.claim(attempt(user), NOW)).reservation
        await store.drop(mine)

        assert (await store.claim(second := attempt(user), NOW)).reservation == second


class TestErase:
    async def test_erase(self, store: Store, other: Store, user: str) -> None:
        """What is stored of a user is erased on every replica; that of others is kept."""
        done, pending = {}, {}
        for who in (user, f"{user}:k"):
            done[who] = attempt(who, key="k")
            await store.claim(done[who], NOW)
            await store.finish(done[who], remember=DAY)
            pending[who] = attempt(who)
            await store.claim(pending[who], NOW)

        assert [1, 0] == [await other.erase(user), await other.erase(user)]

        for who, kept in ((user, False), (f"{user}:k", True)):
            assert kept is (await store.consent(done[who].record) is not None)
            assert kept is (await store.answered(who, "k", NOW) is not None)
            again = (await store.claim(attempt(who), NOW)).reservation
            assert kept is (again == pending[who])


class TestOpen:
    async def test_at_once(self, tmp_path: Path) -> None:
        """Replicas that start together on a new database all succeed."""
        for n in range(5):
            url = f"sqlite+aiosqlite:///{tmp_path}/new{n}.sqlite"
            for store in await asyncio.gather(*(opened(url) for _ in range(8))):
                await store.close()


class TestAway:
    @pytest.mark.parametrize(
        "url",
        [
            "redis://127.0.0.1:{port}/0",
            "postgresql+asyncpg://x@127.0.0.1:{port}/x",
            "sqlite+aiosqlite:////nowhere/x.sqlite",
        ],
    )
    async def test_cannot_open(self, url: str) -> None:
        """An unavailable store is UNAVAILABLE, whatever its kind."""
        with pytest.raises(UnavailableError):
            await opened(url.format(port=free_port()))

    async def test_rejected_value(self, store: Store, user: str) -> None:
        """A value that the database cannot store is not reported as an outage."""
        with contextlib.suppress(DBAPIError):
            await store.claim(attempt(f"{user}\0"), NOW)

    @pytest.mark.redis
    async def test_dies_later(self, tmp_path: Path, user: str) -> None:
        """A store that stops makes calls UNAVAILABLE, without unexpected errors."""
        with contextlib.ExitStack() as stack:
            store = await opened(stack.enter_context(servers.redis(tmp_path)))
        with pytest.raises(UnavailableError):
            await store.claim(attempt(user), NOW)
        await store.close()
