"""The embedded identity provider: users and sessions in Auth's own database."""

import secrets
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Row, delete, exists, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from auth_svc.errors import InvalidCredentialsError
from auth_svc.hashing import digest
from auth_svc.ports import (
    APPLICANT,
    Clock,
    Invitation,
    OpenedSession,
    Session,
    SessionLife,
    User,
    Verified,
    with_label,
)
from auth_svc.providers.user_agents import describe
from auth_svc.storage.database import Database, insert_where
from auth_svc.storage.tables import sessions, users
from mesh.chassis.telemetry import names

log = structlog.get_logger("embedded")

SECRET_BYTES = 32
MAX_SESSIONS_PER_USER = 200
"""Maximum sessions per user; above it, the oldest one ends."""


class EmbeddedDirectory:
    """Users and sessions in SQL; implements the port ``Directory``."""

    def __init__(self, database: Database, life: SessionLife, clock: Clock) -> None:
        self._database = database
        self._life = life
        self._clock = clock

    async def invite(self, email: str, *, new_id: str, language: str) -> Invitation:
        """Find or create the user of *email*."""
        async with self._database.transaction() as connection:
            user = await self._find_or_make(connection, email, new_id)
        if user.blocked:
            # The response does not reveal that the address is known and blocked.
            log.warning("blocked user asked for a link", kind=names.KIND_SECURITY)
        return Invitation(user, secrets.token_hex(SECRET_BYTES), mailed=user.blocked)

    async def open_session(self, user_id: str, secret: str, *, user_agent: str) -> OpenedSession:
        """Open a session; the rules have already validated the link."""
        return await self._open(user_id, user_agent, by_passkey=False)

    async def open_session_of(self, user_id: str, *, user_agent: str) -> OpenedSession:
        """Open a session for a user who presented a passkey."""
        return await self._open(user_id, user_agent, by_passkey=True)

    async def _open(self, user_id: str, user_agent: str, *, by_passkey: bool) -> OpenedSession:
        now = self._clock()
        session = Session(
            str(uuid.uuid4()), now, now + self._life.absolute, describe(user_agent), by_passkey
        )
        opened = OpenedSession(secrets.token_hex(SECRET_BYTES), session)
        values = {
            "id": session.id,
            "digest": digest(opened.secret),
            "user_id": user_id,
            "device": session.device,
            "created_at": now,
            "seen_at": now,
            "expires_at": session.expires_at,
            "by_passkey": by_passkey,
        }
        # One statement, so that a user cannot be blocked between check and insert.
        allowed = exists().where(users.c.id == user_id, users.c.blocked.is_(False))
        async with self._database.transaction() as connection:
            opening = insert_where(sessions, values, allowed)
            if (await connection.execute(opening)).rowcount != 1:
                raise InvalidCredentialsError
            await connection.execute(_beyond_the_most(user_id))
        return opened

    async def find_session(self, secret: str) -> Verified | None:
        """Return the user of *secret*, and record that the session is in use."""
        now = self._clock()
        query = (
            select(sessions, users.c.email, users.c.labels)
            .join(users)
            .where(sessions.c.digest == digest(secret), *self._open_at(now))
            .where(users.c.blocked.is_(False))
        )
        async with self._database.transaction() as connection:
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                return None
            if now - row.seen_at >= self._life.noted_every:
                await connection.execute(
                    update(sessions).where(sessions.c.id == row.id).values(seen_at=now)
                )
        return Verified(User(row.user_id, row.email, tuple(row.labels)), _session(row))

    async def sessions(self, user_id: str) -> list[Session]:
        """Return the user's open sessions, newest first."""
        query = (
            select(sessions)
            .where(sessions.c.user_id == user_id, *self._open_at(self._clock()))
            .order_by(sessions.c.created_at.desc(), sessions.c.id)
        )
        async with self._database.transaction() as connection:
            return [_session(row) for row in await connection.execute(query)]

    async def end_session(self, user_id: str, session_id: str) -> bool:
        """End one session of the user; return False if the user has no such session."""
        statement = delete(sessions).where(
            sessions.c.user_id == user_id, sessions.c.id == session_id
        )
        async with self._database.transaction() as connection:
            return (await connection.execute(statement)).rowcount > 0

    async def end_sessions(self, user_id: str) -> list[str]:
        """End all sessions of the user and return their ids."""
        async with self._database.transaction() as connection:
            return list(await connection.scalars(_all_of(user_id)))

    async def set_label(self, user_id: str, label: str, *, on: bool) -> None:
        """Add *label* to the user, or remove it."""
        theirs = users.c.id == user_id
        async with self._database.transaction() as connection:
            labels = (await connection.execute(select(users.c.labels).where(theirs))).scalar() or []
            changed = list(with_label(labels, label, on=on))
            await connection.execute(update(users).where(theirs).values(labels=changed))

    async def block(self, user_id: str, *, on: bool) -> list[str]:
        """Block the user and return the ids of the sessions that end, or unblock them."""
        theirs = users.c.id == user_id
        async with self._database.transaction() as connection:
            await connection.execute(update(users).where(theirs).values(blocked=on))
            return list(await connection.scalars(_all_of(user_id))) if on else []

    async def remove_user(self, user_id: str) -> list[str]:
        """Remove the user with their sessions and return the ids of these; idempotent."""
        async with self._database.transaction() as connection:
            ended = list(await connection.scalars(_all_of(user_id)))
            await connection.execute(delete(users).where(users.c.id == user_id))
        return ended

    async def users(self) -> AsyncIterator[User]:
        """Yield all users, oldest first."""
        query = select(users).order_by(users.c.created_at, users.c.id)
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).all()
        for row in rows:
            yield _user(row)

    async def add_user(self, user: User) -> None:
        """Add *user*, who must not exist."""
        row = {
            "id": user.id,
            "email": user.email,
            "labels": list(user.labels),
            "blocked": user.blocked,
        }
        async with self._database.transaction() as connection:
            await connection.execute(users.insert().values(**row, created_at=self._clock()))

    def _open_at(self, now: datetime) -> tuple[Any, ...]:
        return sessions.c.expires_at > now, sessions.c.seen_at > now - self._life.idle

    async def _find_or_make(self, connection: AsyncConnection, email: str, new_id: str) -> User:
        try:
            async with connection.begin_nested():
                await self._make(connection, email, new_id)
        except IntegrityError:
            # REDCap has this address under the id of a user who signs in with another one.
            # Reusing that id would let one person read another's requests.
            log.warning("user id is taken", action="generated a new id")
            await self._make(connection, email, secrets.token_hex(10))
        query = select(users).where(users.c.email == email)
        row = (await connection.execute(query)).one()
        return _user(row)

    async def _make(self, connection: AsyncConnection, email: str, new_id: str) -> None:
        statement = self._database.insert(users).values(
            id=new_id, email=email, labels=[APPLICANT], created_at=self._clock()
        )
        await connection.execute(statement.on_conflict_do_nothing(index_elements=["email"]))


def _all_of(user_id: str) -> Any:
    return delete(sessions).where(sessions.c.user_id == user_id).returning(sessions.c.id)


def _beyond_the_most(user_id: str) -> Any:
    kept = (
        select(sessions.c.id)
        .where(sessions.c.user_id == user_id)
        .order_by(sessions.c.created_at.desc(), sessions.c.id)
        .limit(MAX_SESSIONS_PER_USER)
    )
    return delete(sessions).where(
        sessions.c.user_id == user_id, sessions.c.id.not_in(kept.scalar_subquery())
    )


def _session(row: Row[Any]) -> Session:
    return Session(row.id, row.created_at, row.expires_at, row.device, row.by_passkey)


def _user(row: Row[Any]) -> User:
    return User(row.id, row.email, tuple(row.labels), row.blocked)
