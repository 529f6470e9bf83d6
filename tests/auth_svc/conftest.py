"""A fresh database, on both kinds of server, with Auth on it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from auth_svc.storage.database import Database
from auth_svc.storage.tables import metadata
from mesh.chassis.testing import FakeClock
from mesh.contract import policy
from tests.auth_svc.calls import called_by
from tests.auth_svc.harness import Harness, embedded, present_clock
from tests.postgres import postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server for this session."""
    with postgres() as url:
        yield url


@pytest.fixture
def clock() -> FakeClock:
    """A clock that starts at the current time and moves only when a test advances it."""
    return present_clock()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a test's database."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'auth.sqlite'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An empty database with all tables."""
    async with aclosing(Database(database_url)) as fresh:
        await fresh.migrate()
        if not fresh.is_sqlite:
            async with fresh.transaction() as connection:
                await connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)}"))
        yield fresh


@pytest.fixture
def harness(database: Database, clock: FakeClock) -> Harness:
    """Auth with the embedded provider."""
    return Harness(database, clock, embedded(database, clock))


@pytest.fixture
async def auth(
    harness: Harness, svids: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Any]:
    """A stub of Auth as the gateway has it; a busy machine ends no call of these tests."""
    for method in policy.load():
        if not method.stays_open:
            monkeypatch.setitem(vars(method), "deadline_seconds", 60.0)
    async with called_by("gateway", harness, svids) as stub:
        yield stub
