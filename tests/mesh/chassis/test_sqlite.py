"""SQLite with an asynchronous engine: cleanup after cancelled calls."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from mesh.chassis.sqlite import CONNECT

SLOW = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000)"
    " SELECT count(*) FROM n"
)
PATIENCE_SECONDS = 30


async def test_cancelled_twice(tmp_path: Path) -> None:
    """
    A call that is cancelled again while its connection closes leaves no hanging task.

    SQLAlchemy 2.1.9 with aiosqlite 0.22.1 leaves one, for which the end of a process waits.
    """
    url = f"sqlite+aiosqlite:///{tmp_path / 'some.sqlite'}"
    engine = create_async_engine(url, connect_args=CONNECT)
    before = asyncio.all_tasks()

    async def work() -> None:
        async with engine.connect() as connection:
            await connection.execute(SLOW)

    call = asyncio.create_task(work())
    while not (closing := asyncio.all_tasks() - before - {call}):
        await asyncio.sleep(0.05)
        call.cancel()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    await asyncio.wait_for(asyncio.gather(*closing), PATIENCE_SECONDS)
    await engine.dispose()
