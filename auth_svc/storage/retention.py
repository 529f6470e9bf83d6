"""Deletion of expired rows."""

from datetime import datetime, timedelta

from sqlalchemy import delete

from auth_svc.ports import LONGEST_SESSION
from auth_svc.storage.database import Database
from auth_svc.storage.tables import (
    buckets,
    ceremonies,
    counters,
    issued_links,
    links,
    revocations,
    sessions,
    uses,
)

ISSUED_LINKS_KEPT = timedelta(days=30)
"""How long an earlier link is remembered, so that it does not count as a wrong attempt."""


async def purge(database: Database, before: datetime) -> None:
    """Delete links, buckets, sessions and other rows that expired before *before*."""
    async with database.transaction() as connection:
        await connection.execute(delete(ceremonies).where(ceremonies.c.expires_at < before))
        await connection.execute(delete(sessions).where(sessions.c.expires_at < before))
        await connection.execute(delete(links).where(links.c.expires_at < before))
        old_links = issued_links.c.expires_at < before - ISSUED_LINKS_KEPT
        await connection.execute(delete(issued_links).where(old_links))
        ended_ms = int(before.timestamp() * 1000)
        await connection.execute(delete(buckets).where(buckets.c.full_at < ended_ms))
        await connection.execute(delete(counters).where(counters.c.since < before))
        await connection.execute(delete(revocations).where(revocations.c.revoked_at < before))
        # Sessions have ended by then; deleting a row earlier would make its session look fresh.
        await connection.execute(delete(uses).where(uses.c.seen_at < before - LONGEST_SESSION))
