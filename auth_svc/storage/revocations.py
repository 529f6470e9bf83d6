"""Revocations, shared by all replicas and by the administration commands."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select

from auth_svc.ports import Revocation
from auth_svc.storage.database import Database
from auth_svc.storage.tables import revocations


class SqlRevocations:
    """Implements the port ``RevocationStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read_at: int | None = None

    async def add(self, added: Sequence[Revocation]) -> None:
        """Store *added*."""
        rows = [
            {"session_id": one.session_id, "user_id": one.user_id, "revoked_at": one.at}
            for one in added
        ]
        async with self._database.transaction() as connection:
            await connection.execute(revocations.insert(), rows)

    async def after(self, position: int, *, since: datetime) -> dict[int, Revocation]:
        """Return the revocations after *position* that were made after *since*, by position.

        Returns an empty list if the database has not changed since the last call.
        """
        version = await self._database.version()
        if version is not None and version == self._read_at:
            return {}
        query = select(revocations).where(
            revocations.c.id > position, revocations.c.revoked_at > since
        )
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).all()
        self._read_at = version
        return {row.id: Revocation(row.session_id, row.user_id, row.revoked_at) for row in rows}
