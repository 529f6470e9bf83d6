"""A fresh database and Auth over it."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from auth_svc.database import Database
from mesh.chassis.testing import FakeClock
from tests.auth_svc.world import World, embedded, present_clock


@pytest.fixture
def clock() -> FakeClock:
    """A clock that starts at the present and moves when told to."""
    return present_clock()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database with all tables."""
    async with aclosing(Database(f"sqlite+aiosqlite:///{tmp_path / 'auth.sqlite'}")) as fresh:
        await fresh.migrate()
        yield fresh


@pytest.fixture
def world(database: Database, clock: FakeClock) -> World:
    """Auth over the embedded provider."""
    return World(database, clock, embedded(database, clock))
