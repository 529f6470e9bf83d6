"""Pending magic links."""

from datetime import datetime

from sqlalchemy import exists, update

from auth_svc.ports import Link
from auth_svc.storage.database import Database
from auth_svc.storage.tables import issued_links, links


class SqlLinks:
    """Implements the port for pending links, one row per handle."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, link: Link) -> None:
        """Store *link*, replacing the previous one."""
        fresh = {
            "user_id": link.user_id,
            "digest": link.digest,
            "tries": 0,
            "expires_at": link.expires_at,
            "used_at": None,
        }
        statement = self._database.insert(links).values(handle=link.handle, **fresh)
        issued = self._database.insert(issued_links).values(
            digest=link.digest, expires_at=link.expires_at
        )
        async with self._database.transaction() as connection:
            await connection.execute(issued.on_conflict_do_nothing())
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["handle"], set_=fresh)
            )

    async def consume(self, handle: str, digest: bytes, *, now: datetime, tries: int) -> str | None:
        """Consume a link; a single UPDATE decides which concurrent caller wins."""
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
            .where(~exists().where(issued_links.c.digest == digest))
            .values(tries=links.c.tries + 1)
        )
        async with self._database.transaction() as connection:
            user_id: str | None = (await connection.execute(use)).scalar()
            if user_id is None:
                await connection.execute(miss)
        return user_id

    async def restore(self, handle: str, digest: bytes) -> None:
        """Make a consumed link usable again."""
        same = (links.c.handle == handle, links.c.digest == digest)
        async with self._database.transaction() as connection:
            await connection.execute(update(links).where(*same).values(used_at=None))
