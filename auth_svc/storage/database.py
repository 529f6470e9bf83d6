"""Auth's database, SQLite or PostgreSQL: connections, migrations, and outages."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, String, Table, column, event, literal, select, table, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

import auth_svc
from mesh.chassis.errors import UnavailableError
from mesh.chassis.server import StartError
from mesh.chassis.sql import CONNECT, is_outage, write_ahead

DRIVERS = ("sqlite+aiosqlite", "postgresql+asyncpg")
WAIT_SECONDS = 3
POOL_SIZE = 8
_MIGRATIONS = Path(auth_svc.__file__).parent / "migrations"
NEWEST_REVISION = max(file.name[1:5] for file in (_MIGRATIONS / "versions").glob("m*_*.py"))
VERSION_TABLE = "auth_alembic_version"
_LOCK = 0x414D_4152_5245  # arbitrary, but not used by any other program in this database


class Database:
    """One database and its pool of connections."""

    def __init__(self, url: str) -> None:
        """Create the pool; connects lazily.

        Raises:
            StartError: *url* is not supported.
        """
        try:
            parsed = make_url(url)
        except ArgumentError as exc:
            raise StartError(f"AMARRE_AUTH_DATABASE is not a database URL: {exc}") from exc
        if parsed.drivername not in DRIVERS:
            raise StartError(
                f"AMARRE_AUTH_DATABASE starts with {parsed.drivername!r}; use one of"
                f" {', '.join(DRIVERS)}."
            )
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        options: dict[str, Any] = {
            "pool_size": POOL_SIZE,
            "max_overflow": 0,
            "pool_timeout": WAIT_SECONDS,
        }
        if self.is_sqlite:
            options["connect_args"] = {**CONNECT, "timeout": WAIT_SECONDS}
        else:
            options["connect_args"] = {"timeout": WAIT_SECONDS, "command_timeout": WAIT_SECONDS}
            options["pool_pre_ping"] = True
        self._engine = create_async_engine(parsed, **options)
        if self.is_sqlite:
            event.listen(self._engine.sync_engine, "connect", _prepare_sqlite)
        self._watching: sqlite3.Connection | None = None

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in a transaction, committed at the end of the body.

        Raises:
            UnavailableError: The database is unreachable or too busy.
        """
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as exc:
            if not is_outage(exc):
                raise
            raise UnavailableError("The database of Auth is unavailable.") from exc

    def insert(self, table: Table) -> Any:
        """Return an INSERT with ON CONFLICT support in the dialect of this database."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    async def migrate(self, back_to: str = "") -> None:
        """Migrate the schema; replicas that start together wait for one another.

        Args:
            back_to: The revision to downgrade to, such as ``0001``, before returning to an earlier
                version.

        Raises:
            StartError: The database cannot be reached or migrated.
        """
        if not back_to and await self._is_current():
            return
        lock = "BEGIN IMMEDIATE" if self.is_sqlite else f"SELECT pg_advisory_xact_lock({_LOCK})"
        try:
            async with self._engine.begin() as connection:
                await connection.execute(text(lock))
                await connection.run_sync(_move, back_to)
        except (SQLAlchemyError, OSError, TimeoutError) as exc:
            raise StartError(
                f"The database of AMARRE_AUTH_DATABASE cannot be used: {_cause(exc)}"
            ) from exc

    async def _is_current(self) -> bool:
        """Return whether the newest migration has run, without loading Alembic."""
        query = select(column("version_num", String)).select_from(table(VERSION_TABLE))
        try:
            async with self._engine.connect() as connection:
                return list(await connection.scalars(query)) == [NEWEST_REVISION]
        except (SQLAlchemyError, OSError, TimeoutError):
            return False  # No table or no database yet; the migration finds out which.

    async def version(self) -> int | None:
        """Return a number that changes with every write by another connection or process.

        Returns:
            None if unsupported: with PostgreSQL, and if the file cannot be read.
        """
        if not self.is_sqlite or not self._engine.url.database:
            return None
        try:
            return await asyncio.to_thread(self._data_version)
        except sqlite3.Error:
            return None

    def _data_version(self) -> int:
        if self._watching is None:
            self._watching = sqlite3.connect(
                str(self._engine.url.database), check_same_thread=False, timeout=WAIT_SECONDS
            )
        return int(self._watching.execute("PRAGMA data_version").fetchone()[0])

    async def is_reachable(self) -> bool:
        """Return whether the database can be queried."""
        async with self.transaction() as connection:
            return (await connection.execute(text("SELECT 1"))).scalar() == 1

    async def is_writable(self) -> bool:
        """Return whether the database is writable: not locked, and its disk not full."""
        async with self.transaction() as connection:
            if self.is_sqlite:
                await connection.execute(text("BEGIN IMMEDIATE"))
                await connection.execute(text("PRAGMA user_version = 0"))
            else:
                await connection.execute(text("SELECT txid_current()"))
        return True

    async def aclose(self) -> None:
        """Close all connections."""
        if self._watching is not None:
            self._watching.close()
        await self._engine.dispose()


def insert_where(table: Table, values: Mapping[str, Any], condition: Any) -> Any:
    """Return an INSERT of a row that applies only if *condition* holds."""
    row = select(*(literal(value, table.c[name].type) for name, value in values.items()))
    return table.insert().from_select([*values], row.where(condition))


def _move(connection: Connection, back_to: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        if back_to:
            command.downgrade(config, back_to)
        else:
            command.upgrade(config, "head")
    except CommandError as exc:
        raise StartError(
            f"The tables of AMARRE_AUTH_DATABASE cannot be migrated: {exc}. If a later version has"
            " migrated them, revert with that version: python -m auth_svc.migrations REVISION"
        ) from exc


def _prepare_sqlite(connection: Any, _: object) -> None:
    write_ahead(connection)
    cursor = connection.cursor()
    for pragma in ("synchronous = NORMAL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _cause(exc: BaseException) -> str:
    return str(getattr(exc, "orig", None) or exc).splitlines()[0]
