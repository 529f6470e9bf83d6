"""The last use of sessions, for providers that do not record it."""

from datetime import datetime

from sqlalchemy import select, update

from auth_svc.ports import SessionLife, Use
from auth_svc.storage.database import Database
from auth_svc.storage.tables import uses


class SqlSessionUses:
    """How sessions were opened and when they were last used."""

    def __init__(self, database: Database, life: SessionLife) -> None:
        self._database = database
        self._life = life

    async def record_start(self, session_id: str, *, by_passkey: bool, now: datetime) -> None:
        """Record that a session was opened, and how."""
        row = {"session_id": session_id, "seen_at": now, "by_passkey": by_passkey}
        new = self._database.insert(uses).values(row)
        async with self._database.transaction() as connection:
            await connection.execute(new.on_conflict_do_update(["session_id"], set_=row))

    async def record_use(self, session_id: str, *, now: datetime) -> Use | None:
        """Record a use of a session; return None if it was idle for too long."""
        this = uses.c.session_id == session_id
        first = self._database.insert(uses).values(session_id=session_id, seen_at=now)
        async with self._database.transaction() as connection:
            known = (await connection.execute(select(uses).where(this))).one_or_none()
            if known is None:
                await connection.execute(first.on_conflict_do_nothing())
                return Use(by_passkey=False)
            if now - known.seen_at >= self._life.idle:
                return None
            if now - known.seen_at >= self._life.noted_every:
                await connection.execute(update(uses).where(this).values(seen_at=now))
        return Use(known.by_passkey)
