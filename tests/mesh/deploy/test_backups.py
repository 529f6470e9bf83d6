"""A backup restored into empty databases contains every session and reservation."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.sql import text

from auth_svc.ports import SessionLife, User
from auth_svc.providers.embedded import EmbeddedDirectory
from auth_svc.storage.database import Database
from mesh.deploy.check import DEPLOY
from survey_svc.ports import Reservation
from survey_svc.storage.sql_store import SqlStore
from tests.postgres import postgres, required

SCRIPTS = DEPLOY / "ansible" / "roles" / "backups" / "files"
NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)
ADA = User("ada", "ada@example.org")
pytestmark = pytest.mark.postgres


@pytest.fixture
async def server() -> AsyncIterator[str]:
    """A PostgreSQL with the empty databases auth and survey, each with its owner."""
    with postgres() as url:
        await run_sql(url, "create role auth login", "create role survey login")
        await empty(url)
        yield url


async def run_sql(url: str, *statements: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


async def empty(url: str) -> None:
    await run_sql(
        url,
        *(f"drop database if exists {name}" for name in ("auth", "survey")),
        *(f"create database {name} owner {name}" for name in ("auth", "survey")),
    )


def of(url: str, name: str) -> str:
    """Return the URL of the database *name*, as used by its service."""
    changed = make_url(url).set(username=name, database=name)
    return changed.render_as_string(hide_password=False)


async def script(url: str, folder: Path, name: str, *arguments: str) -> tuple[int, str]:
    """Run one of the scripts; return its status and output."""
    parsed = make_url(url)
    process = await asyncio.create_subprocess_exec(
        SCRIPTS / name,
        *arguments,
        env={
            "PATH": f"{required()}{os.pathsep}{os.environ['PATH']}",
            "PGHOST": str(parsed.host),
            "PGPORT": str(parsed.port),
            "PGUSER": str(parsed.username),
            "AMARRE_BACKUPS": str(folder),
            "AMARRE_METRICS": str(folder / "backup.prom"),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def fill(url: str) -> str:
    """Create a session and a reservation for Ada; return the secret of the session."""
    async with aclosing(Database(of(url, "auth"))) as database:
        await database.migrate()
        directory = EmbeddedDirectory(database, SessionLife(), lambda: NOW)
        await directory.add_user(ADA)
        opened = await directory.open_session_of(ADA.id, user_agent="test")
    store = await SqlStore.open(of(url, "survey"))
    await store.claim(reservation(), NOW)
    await store.close()
    return opened.secret


def reservation() -> Reservation:
    return Reservation(
        user=ADA.id,
        record="r1",
        created_at=NOW,
        holder="h1",
        ends_at=NOW + timedelta(seconds=12),
        notice="2026-01",
        consented_at=NOW,
        key="k",
        input="i",
    )


async def test_restored(server: str, tmp_path: Path) -> None:
    """
    After a restore into an empty system, Ada's session and reservation are valid.
    """
    secret = await fill(server)
    status, said = await script(server, tmp_path, "amarre-backup")
    assert 0 == status, said
    archive = said.splitlines()[-1]
    await empty(server)

    status, said = await script(server, tmp_path, "amarre-restore", archive)

    assert 0 == status, said
    async with aclosing(Database(of(server, "auth"))) as database:
        await database.migrate()
        directory = EmbeddedDirectory(database, SessionLife(), lambda: NOW)
        verified = await directory.find_session(secret)
        assert verified is not None
        assert ADA == verified.user
    store = await SqlStore.open(of(server, "survey"))
    assert [reservation()] == await store.abandoned(NOW + timedelta(minutes=1))
    await store.close()
    assert "amarre_backup_last_success_timestamp_seconds" in (tmp_path / "backup.prom").read_text()


async def test_not_over_what_is_there(server: str, tmp_path: Path) -> None:
    """
    A restore over databases with tables is rejected, and their content stays.
    """
    secret = await fill(server)
    _, said = await script(server, tmp_path, "amarre-backup")

    status, said = await script(server, tmp_path, "amarre-restore", said.splitlines()[-1])

    assert 1 == status
    assert "the database auth is not empty" in said
    async with aclosing(Database(of(server, "auth"))) as database:
        directory = EmbeddedDirectory(database, SessionLife(), lambda: NOW)
        assert await directory.find_session(secret) is not None


async def test_damaged_archive(server: str, tmp_path: Path) -> None:
    """
    An archive with wrong checksums is rejected before anything is changed.
    """
    await fill(server)
    _, said = await script(server, tmp_path, "amarre-backup")
    archive = Path(said.splitlines()[-1])
    content = bytearray(archive.read_bytes())
    place = content.index(b"PGDMP")
    content[place + 40 : place + 60] = secrets.token_bytes(20)
    archive.write_bytes(content)
    await empty(server)

    status, said = await script(server, tmp_path, "amarre-restore", str(archive))

    assert 0 != status
    assert "FAILED" in said


async def test_backup_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """
    A backup with an unreachable database reports it, and leaves no archive behind.
    """
    url = "postgresql+asyncpg://amarre@127.0.0.1:1/postgres"

    status, _ = await script(url, tmp_path, "amarre-backup")

    assert 0 != status
    assert [] == list(tmp_path.iterdir())
