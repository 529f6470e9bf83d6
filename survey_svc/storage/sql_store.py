"""Reservation store in SQLite or PostgreSQL."""

import contextlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Column, MetaData, String, Table, delete, event, select, update
from sqlalchemy import text as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from mesh.chassis.errors import UnavailableError
from mesh.chassis.sql import CONNECT, is_outage, write_ahead
from survey_svc.ports import Answer, Claim, Consent, Reservation

WAIT_SECONDS = 5
_LOCK = 0x616D6172
"""PostgreSQL advisory lock; an arbitrary number that is not used elsewhere."""

metadata = MetaData()
places = Table(
    "survey_places",
    metadata,
    Column("user_id", String(254), primary_key=True),
    Column("record", String(100), nullable=False),
    Column("created_at", BigInteger, nullable=False, comment="milliseconds since 1970"),
    Column("holder", String(32), nullable=False),
    Column("ends_at", BigInteger, nullable=False, index=True),
    Column("notice", String(64), nullable=False),
    Column("consented_at", BigInteger),
    Column("key", String(64), nullable=False),
    Column("input", String(64), nullable=False),
)
answers = Table(
    "survey_answers",
    metadata,
    Column("user_id", String(254), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("record", String(100), nullable=False),
    Column("input", String(64), nullable=False),
    Column("ends_at", BigInteger, nullable=False, index=True),
)
consents = Table(
    "survey_consents",
    metadata,
    Column("record", String(100), primary_key=True),
    Column("user_id", String(254), nullable=False),
    Column("consented_at", BigInteger, nullable=False),
    Column("notice", String(64), nullable=False),
)


class SqlStore:
    """Implements `survey_svc.ports.Store`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        dialect = sqlite if engine.dialect.name == "sqlite" else postgresql
        self._insert = dialect.insert

    @classmethod
    async def open(cls, url: str) -> "SqlStore":
        """Open the database at *url* and create missing tables.

        Raises:
            UnavailableError: It cannot be reached or written.
        """
        where = make_url(url)
        if where.get_backend_name() == "sqlite" and where.database:
            folder = Path(where.database).parent
            if not os.access(folder, os.W_OK | os.X_OK):
                raise UnavailableError(f"The folder {folder} does not exist or is not writable.")
        store = cls(_engine(url))
        try:
            await store._make_tables()
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        await self._engine.dispose()

    async def claim(self, attempt: Reservation, now: datetime) -> Claim:
        while True:
            async with self._transaction() as connection:
                claim = await self._claim(connection, attempt, now)
            if claim is not None:
                return claim

    async def _claim(
        self, connection: AsyncConnection, attempt: Reservation, now: datetime
    ) -> Claim | None:
        # Starting with a write makes SQLite acquire its write lock before reading.
        insert = self._insert(places).values(_to_row(attempt)).on_conflict_do_nothing()
        if (await connection.execute(insert)).rowcount == 1:
            return Claim(attempt)
        theirs = places.c.user_id == attempt.user
        found = (await connection.execute(select(places).where(theirs).with_for_update())).first()
        if found is None:
            return None  # It was released between the two statements.
        held = _from_row(found)
        if held.ends_at > now:
            return Claim(held)
        taken = held.taken_over_by(attempt)
        await connection.execute(update(places).where(theirs).values(_to_row(taken)))
        return Claim(taken, before=held)

    async def finish(self, reservation: Reservation, *, remember: timedelta) -> None:
        now = reservation.consented_at or reservation.created_at
        async with self._transaction() as connection:
            await connection.execute(delete(places).where(*_same_record(reservation)))
            await connection.execute(
                self._insert(consents)
                .values(
                    record=reservation.record,
                    user_id=reservation.user,
                    consented_at=_to_ms(now),
                    notice=reservation.notice,
                )
                .on_conflict_do_nothing()
            )
            if reservation.key:
                await connection.execute(
                    self._insert(answers)
                    .values(
                        user_id=reservation.user,
                        key=reservation.key,
                        record=reservation.record,
                        input=reservation.input,
                        ends_at=_to_ms(now + remember),
                    )
                    .on_conflict_do_nothing()
                )
            await connection.execute(delete(answers).where(answers.c.ends_at <= _to_ms(now)))

    async def drop(self, reservation: Reservation) -> None:
        async with self._transaction() as connection:
            await connection.execute(delete(places).where(*_same_record(reservation)))

    async def let_go(self, reservation: Reservation, now: datetime) -> None:
        same = *_same_record(reservation), places.c.holder == reservation.holder
        async with self._transaction() as connection:
            await connection.execute(update(places).where(*same).values(ends_at=_to_ms(now)))

    async def answered(self, user: str, key: str, now: datetime) -> Answer | None:
        query = select(answers.c.record, answers.c.input).where(
            answers.c.user_id == user, answers.c.key == key, answers.c.ends_at > _to_ms(now)
        )
        async with self._transaction() as connection:
            found = (await connection.execute(query)).first()
        return Answer(record=found.record, input=found.input) if found else None

    async def consent(self, record: str) -> Consent | None:
        query = select(consents).where(consents.c.record == record)
        async with self._transaction() as connection:
            found = (await connection.execute(query)).first()
        if found is None:
            return None
        return Consent(found.user_id, _from_ms(found.consented_at), found.notice)

    async def erase(self, user: str) -> int:
        async with self._transaction() as connection:
            for table in (places, answers):
                await connection.execute(delete(table).where(table.c.user_id == user))
            return (
                await connection.execute(delete(consents).where(consents.c.user_id == user))
            ).rowcount

    async def abandoned(self, now: datetime, *, limit: int = 100) -> list[Reservation]:
        over = places.c.ends_at <= _to_ms(now)
        query = select(places).where(over).order_by(places.c.ends_at).limit(limit)
        async with self._transaction() as connection:
            return [_from_row(row) for row in await connection.execute(query)]

    async def _make_tables(self) -> None:
        async with self._transaction() as connection:
            # Replicas may start at the same time: serialize the creation of the tables.
            is_sqlite = self._engine.dialect.name == "sqlite"
            lock = "begin immediate" if is_sqlite else f"select pg_advisory_xact_lock({_LOCK})"
            await connection.execute(sql(lock))
            await connection.run_sync(metadata.create_all)

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as exc:
            if not is_outage(exc):
                raise
            raise UnavailableError("The reservation store is unavailable.") from exc


def _engine(url: str) -> AsyncEngine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_async_engine(
            url,
            pool_pre_ping=True,
            pool_timeout=WAIT_SECONDS,
            connect_args={"timeout": WAIT_SECONDS, "command_timeout": WAIT_SECONDS},
        )
    engine = create_async_engine(url, connect_args={**CONNECT, "timeout": WAIT_SECONDS})

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _: object) -> None:
        # Allows reads during writes; committed data survives a crash of the machine.
        write_ahead(connection)
        connection.execute("PRAGMA synchronous=FULL")

    return engine


def _same_record(reservation: Reservation) -> tuple[Any, Any]:
    return places.c.user_id == reservation.user, places.c.record == reservation.record


def _to_row(reservation: Reservation) -> dict[str, Any]:
    consented_at = reservation.consented_at
    return {
        "user_id": reservation.user,
        "record": reservation.record,
        "created_at": _to_ms(reservation.created_at),
        "holder": reservation.holder,
        "ends_at": _to_ms(reservation.ends_at),
        "notice": reservation.notice,
        "consented_at": None if consented_at is None else _to_ms(consented_at),
        "key": reservation.key,
        "input": reservation.input,
    }


def _from_row(row: Any) -> Reservation:
    return Reservation(
        user=row.user_id,
        record=row.record,
        created_at=_from_ms(row.created_at),
        holder=row.holder,
        ends_at=_from_ms(row.ends_at),
        notice=row.notice,
        consented_at=None if row.consented_at is None else _from_ms(row.consented_at),
        key=row.key,
        input=row.input,
    )


def _to_ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _from_ms(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
