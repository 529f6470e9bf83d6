"""Auth's database: migrations and outages."""

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from auth_svc.storage.database import POOL_SIZE, Database
from auth_svc.storage.tables import metadata
from mesh.chassis.errors import UnavailableError
from mesh.chassis.testing import free_port


async def test_migrations_make_the_tables(database: Database) -> None:
    """The migrations create exactly the declared tables."""

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(
            connection, opts={"version_table": "auth_alembic_version"}
        )
        return list(compare_metadata(context, metadata))

    async with database.transaction() as connection:
        assert [] == await connection.run_sync(differences)


async def test_replicas_migrate_together(database_url: str) -> None:
    """
    Replicas that start together on an empty database migrate it once; repeating changes nothing.
    """
    async with (
        aclosing(Database(database_url)) as one,
        aclosing(Database(database_url)) as two,
        aclosing(Database(database_url)) as three,
    ):
        if not one.is_sqlite:
            async with one.transaction() as connection:
                await connection.execute(text("DROP SCHEMA public CASCADE"))
                await connection.execute(text("CREATE SCHEMA public"))

        await asyncio.gather(*(database.migrate() for database in (one, two, three)))
        await one.migrate()

        assert await three.is_reachable()


async def test_server_unavailable() -> None:
    """An unreachable database is unavailable, not an internal error."""
    url = f"postgresql+asyncpg://x@127.0.0.1:{free_port()}/x"
    async with aclosing(Database(url)) as database:
        with pytest.raises(UnavailableError):
            await database.is_reachable()


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("53100", UnavailableError),
        ("53300", UnavailableError),
        ("57P03", UnavailableError),
        ("40P01", UnavailableError),
        ("25006", UnavailableError),
        ("22021", DBAPIError),
    ],
    ids=["full disk", "connections", "starting", "deadlock", "read-only", "value"],
)
async def test_error_of_the_server(database: Database, state: str, kind: type[Exception]) -> None:
    """
    An error of PostgreSQL is an outage unless the statement or its values caused it.

    Source: PostgreSQL, Appendix A "Error Codes".
    """
    if database.is_sqlite:
        return
    failing = text(f"DO $$ BEGIN RAISE EXCEPTION SQLSTATE '{state}'; END $$")

    with pytest.raises(kind):
        async with database.transaction() as connection:
            await connection.execute(failing)


async def test_writable(database: Database) -> None:
    """A database locked by another program can be read but not written."""
    assert await database.is_writable()
    if not database.is_sqlite:
        return
    async with database.transaction() as other:
        await other.execute(text("BEGIN IMMEDIATE"))

        assert await database.is_reachable()
        with pytest.raises(UnavailableError):
            await database.is_writable()
    assert await database.is_writable()


async def test_busy(database: Database) -> None:
    """If all connections are in use for too long, the next caller gets an unavailable error."""
    hold = asyncio.Event()
    taken = asyncio.Semaphore(0)

    async def keep() -> None:
        async with database.transaction():
            taken.release()
            await hold.wait()

    async with asyncio.timeout(20):
        keepers = [asyncio.create_task(keep()) for _ in range(POOL_SIZE)]
        for _ in keepers:
            await taken.acquire()
        with pytest.raises(UnavailableError):
            await database.is_reachable()
        hold.set()
        await asyncio.gather(*keepers)


async def test_migrated_database_needs_no_alembic(tmp_path: Path) -> None:
    """A process with an up-to-date schema does not load the migration tool."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'auth.sqlite'}"
    async with aclosing(Database(url)) as database:
        await database.migrate()
    script = (
        "import asyncio, sys\n"
        "from auth_svc.storage.database import Database\n"
        "asyncio.run(Database(sys.argv[1]).migrate())\n"
        "print('alembic' in sys.modules)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, url, stdout=asyncio.subprocess.PIPE
    )
    written, _ = await process.communicate()

    assert (0, b"False") == (process.returncode, written.strip())


async def test_version(database: Database, database_url: str) -> None:
    """The version changes only with a write; PostgreSQL has none."""
    first, quiet = await database.version(), await database.version()
    async with database.transaction() as connection:
        await connection.execute(text("INSERT INTO revocations VALUES (1, 'a', '', '2026-01-01')"))
    own = await database.version()
    async with aclosing(Database(database_url)) as other, other.transaction() as connection:
        await connection.execute(text("DELETE FROM revocations"))
    others = await database.version()

    if not database.is_sqlite:
        assert [None] * 4 == [first, quiet, own, others]
        return
    assert quiet == first
    assert 3 == len({first, own, others})
