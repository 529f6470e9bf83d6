"""Pending links and the counters of limits, in Auth's database whatever the provider."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import case, delete, literal, select, update

from auth_svc.database import Database
from auth_svc.ports import LONGEST_SESSION, Allowance, Exceeded, Link, SessionLife, Use
from auth_svc.tables import ceremonies, counters, links, sessions, uses


class SqlLinks:
    """Pending links, one row per handle."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, link: Link) -> None:
        """Keep *link* in place of the one before."""
        fresh = {
            "user_id": link.user_id,
            "digest": link.digest,
            "tries": 0,
            "expires_at": link.expires_at,
            "used_at": None,
        }
        statement = self._database.insert(links).values(handle=link.handle, **fresh)
        async with self._database.transaction() as connection:
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["handle"], set_=fresh)
            )

    async def take(self, handle: str, digest: bytes, *, now: datetime, tries: int) -> str | None:
        """Use a link up; one UPDATE decides, so that one of parallel callers wins."""
        use = (
            update(links)
            .where(links.c.handle == handle, links.c.digest == digest)
            .where(links.c.used_at.is_(None), links.c.expires_at > now, links.c.tries < tries)
            .values(used_at=now)
            .returning(links.c.user_id)
        )
        miss = (
            update(links)
            .where(links.c.handle == handle, links.c.digest != digest)
            .values(tries=links.c.tries + 1)
        )
        async with self._database.transaction() as connection:
            user_id: str | None = (await connection.execute(use)).scalar()
            if user_id is None:
                await connection.execute(miss)
        return user_id

    async def give_back(self, handle: str, digest: bytes) -> None:
        """Make a link that was taken usable again."""
        same = (links.c.handle == handle, links.c.digest == digest)
        async with self._database.transaction() as connection:
            await connection.execute(update(links).where(*same).values(used_at=None))


class SqlUses:
    """How sessions began and when they were used last, for a provider that does not know."""

    def __init__(self, database: Database, life: SessionLife) -> None:
        self._database = database
        self._life = life

    async def began(self, session_id: str, *, by_passkey: bool, now: datetime) -> None:
        """Note that a session began, and how."""
        row = {"session_id": session_id, "seen_at": now, "by_passkey": by_passkey}
        async with self._database.transaction() as connection:
            await connection.execute(uses.insert().values(row))

    async def note(self, session_id: str, *, now: datetime) -> Use | None:
        """Note that a session is used; None when it was idle for too long."""
        mine = uses.c.session_id == session_id
        first = self._database.insert(uses).values(session_id=session_id, seen_at=now)
        async with self._database.transaction() as connection:
            known = (await connection.execute(select(uses).where(mine))).one_or_none()
            if known is None:
                await connection.execute(first.on_conflict_do_nothing())
                return Use(by_passkey=False)
            if now - known.seen_at >= self._life.idle:
                return None
            if now - known.seen_at >= self._life.noted_every:
                await connection.execute(update(uses).where(mine).values(seen_at=now))
        return Use(known.by_passkey)


class SqlCounters:
    """Counters, one row per key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, allowances: Sequence[Allowance], *, now: datetime) -> Exceeded | None:
        """Count in one transaction, which is rolled back when an allowance is used up."""
        try:
            async with self._database.transaction() as connection:
                for allowance in allowances:
                    statement = self._one_more(allowance, now)
                    hits, since = (await connection.execute(statement)).one()
                    if hits > allowance.hits:
                        raise _UsedUpError(Exceeded(allowance, since))
        except _UsedUpError as used_up:
            return used_up.exceeded
        return None

    def _one_more(self, allowance: Allowance, now: datetime) -> Any:
        """Return the one statement that counts, so that no hit of parallel callers is lost."""
        over = counters.c.since <= now - allowance.window
        fresh = literal(now, counters.c.since.type)
        return (
            self._database.insert(counters)
            .values(key=allowance.key, hits=1, since=now)
            .on_conflict_do_update(
                index_elements=["key"],
                set_={
                    "hits": case((over, 1), else_=counters.c.hits + 1),
                    "since": case((over, fresh), else_=counters.c.since),
                },
            )
            .returning(counters.c.hits, counters.c.since)
        )


class _UsedUpError(Exception):
    """Leaves the transaction, so that nothing of it stays."""

    def __init__(self, exceeded: Exceeded) -> None:
        super().__init__("an allowance is used up")
        self.exceeded = exceeded


async def purge(database: Database, before: datetime) -> None:
    """Forget links, counters, sessions and ceremonies that ended before *before*."""
    async with database.transaction() as connection:
        await connection.execute(delete(ceremonies).where(ceremonies.c.expires_at < before))
        await connection.execute(delete(sessions).where(sessions.c.expires_at < before))
        await connection.execute(delete(links).where(links.c.expires_at < before))
        await connection.execute(delete(counters).where(counters.c.since < before))
        # Sessions have ended by then; to forget one before would make it look fresh.
        await connection.execute(delete(uses).where(uses.c.seen_at < before - LONGEST_SESSION))
