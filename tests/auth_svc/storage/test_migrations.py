"""Migrations forward and back, as for an upgrade and a rollback."""

import os
import sys
from asyncio import subprocess
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from auth_svc.ports import SessionLife, User
from auth_svc.providers.embedded import EmbeddedDirectory
from auth_svc.storage.database import Database
from mesh.chassis.server import StartError

NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'auth.sqlite'}"


async def migrate(url: str, *arguments: str) -> tuple[int, str]:
    """Run the migration program; return its status and output."""
    process = await subprocess.create_subprocess_exec(
        sys.executable,
        *("-m", "auth_svc.migrations", *arguments),
        env={
            "PATH": os.environ["PATH"],
            "AMARRE_AUTH_DATABASE": url,
            "AMARRE_AUTH_SIGNING_KEY_FILE": "/none",
            "AMARRE_AUTH_KEY_SET_LISTEN": "unix:/none",
            "AMARRE_AUTH_SMTP_URL": "smtp://127.0.0.1:1",
            "AMARRE_AUTH_LINK_URL": "http://localhost/login",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def tables(database: Database) -> set[str]:
    async with database.transaction() as connection:
        names: Callable[..., list[str]] = lambda c: inspect(c).get_table_names()  # noqa: E731
        return set(await connection.run_sync(names))


async def test_forward_back_forward(url: str) -> None:
    """
    The schema is upgraded, downgraded by one revision and upgraded again; sessions remain valid.
    """
    assert (await migrate(url))[0] == 0
    async with aclosing(Database(url)) as database:
        directory = EmbeddedDirectory(database, SessionLife(), lambda: NOW)
        await directory.add_user(User("ada", "ada@example.org"))
        opened = await directory.open_session_of("ada", user_agent="")
        whole = await tables(database)

        assert (await migrate(url, "0001"))[0] == 0
        assert {"users", "sessions"} <= await tables(database) < whole

        assert (await migrate(url))[0] == 0
        assert whole == await tables(database)
        assert await directory.find_session(opened.secret) is not None


async def test_tables_of_a_later_version(url: str) -> None:
    """A version that does not know the schema revision says how to downgrade."""
    async with aclosing(Database(url)) as database:
        await database.migrate()
        async with database.transaction() as connection:
            await connection.execute(text("update auth_alembic_version set version_num = '9999'"))

        with pytest.raises(StartError, match=r"python -m auth_svc\.migrations REVISION"):
            await database.migrate()
