"""Erasure of what Auth's own database has of a user, whatever the identity provider."""

from sqlalchemy import delete

from auth_svc.storage.database import Database
from auth_svc.storage.tables import ceremonies, links, passkeys


class SqlErasure:
    """Implements the port ``Erasure`` of the administration."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def erase(self, user_id: str) -> None:
        """Delete passkeys, unfinished registrations and links; the rest has no user and expires."""
        async with self._database.transaction() as connection:
            for table in (passkeys, ceremonies, links):
                await connection.execute(delete(table).where(table.c.user_id == user_id))
