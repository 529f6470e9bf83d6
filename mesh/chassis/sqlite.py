"""SQLite with concurrent readers and replicas that start at the same time."""

import asyncio
import sqlite3
import time
from typing import Any

from sqlalchemy.util import await_only

WAIT_SECONDS = 5.0
LOOK_SECONDS = 0.01


def write_ahead(connection: Any) -> None:
    """Switch a new connection of an asynchronous engine to write-ahead logging.

    SQLite's own time-out does not cover the switch: while another connection performs it on a new
    file, "database is locked" is returned at once. So this retries.

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
