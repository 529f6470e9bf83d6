"""Passkeys and their ceremonies in Auth's database, for every identity provider."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from auth_svc.sign_in.passkeys import Ceremony, Passkey
from auth_svc.storage.database import Database, insert_where
from auth_svc.storage.tables import ceremonies, passkeys


class SqlPasskeys:
    """Implements the port ``PasskeyStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put_ceremony(self, ceremony: Ceremony) -> None:
        """Store a ceremony."""
        async with self._database.transaction() as connection:
            await connection.execute(
                ceremonies.insert().values(
                    id=ceremony.id,
                    user_id=ceremony.user_id,
                    challenge=ceremony.challenge,
                    expires_at=ceremony.expires_at,
                )
            )

    async def take_ceremony(self, ceremony_id: str, *, now: datetime) -> Ceremony | None:
        """Consume a ceremony; a single DELETE decides which caller gets it."""
        statement = (
            delete(ceremonies).where(ceremonies.c.id == ceremony_id).returning(*ceremonies.c)
        )
        async with self._database.transaction() as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None or row.expires_at <= now:
            return None
        return Ceremony(row.id, row.user_id, row.challenge, row.expires_at)

    async def add(self, passkey: Passkey, *, most: int) -> bool:
        """Store a passkey unless there are *most*; count and insert are one statement."""
        values = {
            "id": passkey.id,
            "user_id": passkey.user_id,
            "public_key": passkey.public_key,
            "sign_count": passkey.sign_count,
            "name": passkey.name,
            "created_at": passkey.created_at,
        }
        theirs = select(func.count()).where(passkeys.c.user_id == passkey.user_id)
        statement = insert_where(passkeys, values, theirs.scalar_subquery() < most)
        try:
            async with self._database.transaction() as connection:
                return (await connection.execute(statement)).rowcount == 1
        except IntegrityError:
            return False

    async def of_user(self, user_id: str) -> list[Passkey]:
        """Return the user's passkeys, newest first."""
        query = (
            select(passkeys)
            .where(passkeys.c.user_id == user_id)
            .order_by(passkeys.c.created_at.desc(), passkeys.c.id)
        )
        async with self._database.transaction() as connection:
            return [_passkey(row) for row in await connection.execute(query)]

    async def find(self, passkey_id: str) -> Passkey | None:
        """Return a passkey by its id."""
        async with self._database.transaction() as connection:
            found = await connection.execute(select(passkeys).where(passkeys.c.id == passkey_id))
            row = found.one_or_none()
        return None if row is None else _passkey(row)

    async def use(self, passkey: Passkey, *, sign_count: int, now: datetime) -> bool:
        """Record a use, unless the counter changed since *passkey* was read."""
        statement = (
            update(passkeys)
            .where(passkeys.c.id == passkey.id, passkeys.c.sign_count == passkey.sign_count)
            .values(sign_count=sign_count, used_at=now)
        )
        async with self._database.transaction() as connection:
            return (await connection.execute(statement)).rowcount == 1

    async def remove(self, user_id: str, passkey_id: str) -> None:
        """Delete a passkey of the user."""
        theirs = passkeys.c.user_id == user_id
        async with self._database.transaction() as connection:
            await connection.execute(delete(passkeys).where(theirs, passkeys.c.id == passkey_id))


def _passkey(row: Row[Any]) -> Passkey:
    return Passkey(
        row.id,
        row.user_id,
        row.public_key,
        row.sign_count,
        row.name,
        row.created_at,
        row.used_at,
    )
