"""Runs queries on their own threads, so that neither writes nor pages wait for a search."""

import asyncio
import base64
import binascii
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mesh.console.store import schema

T = TypeVar("T")
READERS = 2
_SQLITE_INTEGERS = 2**63


class BadRequestError(Exception):
    """A parameter is invalid; the message says what is accepted."""


class Reader:
    """A pool of read-only connections, each on its own thread."""

    def __init__(self, path: Path, readers: int = READERS) -> None:
        self.path = path
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="reader")

    async def run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run *query* on one of the threads, with its connection."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, query)

    def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        db = getattr(self._local, "db", None)
        if db is None:
            db = self._local.db = schema.open_reader(self.path)
            self._opened.append(db)
        return query(db)

    def close(self) -> None:
        """Wait for running queries and close the connections."""
        self._pool.shutdown()
        for db in self._opened:
            db.close()


def name_ids(db: sqlite3.Connection, text: str, *, part: bool = False) -> list[int]:
    """Return the id of the name *text*, or the ids of all names that contain it."""
    if part:
        query = "SELECT id FROM names WHERE instr(lower(text), lower(?))"
    else:
        query = "SELECT id FROM names WHERE text = ?"
    return [row[0] for row in db.execute(query, (text,))]


def service_id(db: sqlite3.Connection, name: str) -> int:
    """Return the id of the service *name*; 0 if unknown."""
    row = db.execute("SELECT id FROM services WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else 0


def service_names(db: sqlite3.Connection) -> dict[int, str]:
    """Return every service by its id."""
    return {row[0]: row[1] for row in db.execute("SELECT id, name FROM services")}


def to_token(*position: int) -> str:
    """Return the page token for a position."""
    return base64.urlsafe_b64encode(",".join(map(str, position)).encode()).decode().rstrip("=")


def from_token(token: str, parts: int) -> tuple[int, ...]:
    """
    Return the position that a page token encodes.

    Raises:
        BadRequestError: The token is invalid.
    """
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
        position = tuple(int(part) for part in text.split(","))
    except (ValueError, binascii.Error):
        position = ()
    if len(position) != parts or not all(0 <= part < _SQLITE_INTEGERS for part in position):
        raise BadRequestError("The page token is invalid; start again without pageToken.")
    return position
