"""SQL databases: which errors are outages, and SQLite connections for concurrent replicas."""

import asyncio
import contextlib
import sqlite3
import time
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

import aiosqlite
from aiosqlite.core import _connection_worker_thread as work_until_stopped
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.util import await_only

WAIT_SECONDS = 5.0
LOOK_SECONDS = 0.01
_OF_STATEMENTS = frozenset({"21", "22", "23", "42"})
"""SQLSTATE classes of statements and their values: cardinality, data, integrity, syntax."""


def is_outage(error: Exception) -> bool:
    """Return whether *error* is about the database itself rather than about the statement.

    Source:
        PostgreSQL, Appendix A "Error Codes". The driver has no classes for a full disk, too many
        connections or a server that is starting.
    """
    if not isinstance(error, DBAPIError):
        return isinstance(error, PoolTimeoutError | OSError)
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    return state[:2] not in _OF_STATEMENTS


class Connection(aiosqlite.Connection):
    """A connection that may be stopped more than once, and that outlives its event loop.

    If a call is cancelled twice while its connection closes, SQLAlchemy stops the connection
    immediately. The pending close would then stop it again and wait forever for a thread that has
    ended, and so would the shutdown of the process, which waits for every task.
    """

    def __init__(self, database: str, **options: Any) -> None:
        """Prepare to connect as `sqlite3.connect` does."""
        super().__init__(partial(sqlite3.connect, database, **options), iter_chunk_size=64)
        self._thread = Thread(target=_work, args=(self._tx,), daemon=True)

    def stop(self) -> asyncio.Future[Any] | None:
        """Stop the thread; return a future for its end, None if it was stopped before."""
        return super().stop() if self._running else None


def _work(calls: SimpleQueue[Any]) -> None:
    """Perform the calls of a connection until it is stopped.

    A call that is cancelled continues here, and its event loop may be closed before it ends. The
    result is then dropped; aiosqlite 0.22.1 ends the thread with an exception and leaves the
    connection open.
    """
    while True:
        with contextlib.suppress(RuntimeError):
            work_until_stopped(calls)
            return
        if calls.empty():
            return


CONNECT: dict[str, Any] = {"async_creator_fn": Connection}
"""The ``connect_args`` with which an asynchronous engine uses `Connection`."""


def write_ahead(connection: Any) -> None:
    """Switch a new connection of an asynchronous engine to write-ahead logging.

    SQLite's busy timeout does not cover the switch: while another connection performs it on a new
    file, "database is locked" is returned at once. Therefore this retries.

    Raises:
        sqlite3.OperationalError: The file stays locked, or cannot be written.
    """
    ends_at = time.monotonic() + WAIT_SECONDS
    while True:
        cursor = connection.cursor()
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > ends_at:
                raise
            await_only(asyncio.sleep(LOOK_SECONDS))
        else:
            return
        finally:
            cursor.close()
