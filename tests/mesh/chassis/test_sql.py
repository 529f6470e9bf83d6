"""SQLite with an asynchronous engine: cleanup after cancelled calls."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from mesh.chassis.sql import CONNECT, Connection

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


def test_event_loop_is_closed(tmp_path: Path) -> None:
    """
    A call may outlive its event loop: its result is dropped, and the connection closes after it.

    aiosqlite 0.22.1 ends the thread with an exception and leaves the connection open.
    """
    before = set(threading.enumerate())
    file = tmp_path / "some.sqlite"
    opened: list[object] = []

    async def stop_during_a_call() -> None:
        connection = await Connection(str(file))
        opened.append(connection)
        await connection.execute("BEGIN EXCLUSIVE")
        call = asyncio.ensure_future(connection.execute(SLOW.text))
        await asyncio.sleep(0)
        connection.stop()
        call.cancel()

    asyncio.run(stop_during_a_call())
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    with sqlite3.connect(file, timeout=0) as other:
        other.execute("BEGIN EXCLUSIVE")  # Would find the file locked.
    other.close()
