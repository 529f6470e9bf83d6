"""Message store: an SQLite file that holds the newest thousand messages."""

import json
import sqlite3
from datetime import datetime
from pathlib import Path

from sandbox.outbox.messages import Message

MOST_MESSAGES = 1_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT NOT NULL,
    recipients TEXT NOT NULL,
    subject TEXT NOT NULL,
    text TEXT NOT NULL,
    html TEXT NOT NULL
)
"""


class Store:
    """
    Messages in an SQLite file.

    Each call is one short statement on a local file, so it runs on the event loop.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        with self._connection as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def add(self, message: Message) -> None:
        """Store *message*; evict the oldest beyond the limit."""
        row = (message.time.isoformat(), json.dumps(message.to), message.subject)
        with self._connection as connection:
            connection.execute(
                "INSERT INTO messages (time, recipients, subject, text, html)"
                " VALUES (?, ?, ?, ?, ?)",
                (*row, message.text, message.html),
            )
            connection.execute(
                "DELETE FROM messages WHERE id <= (SELECT max(id) FROM messages) - ?",
                (MOST_MESSAGES,),
            )

    def newest_first(self) -> list[Message]:
        """Return all messages, newest first."""
        rows = self._connection.execute(
            "SELECT id, time, recipients, subject, text, html FROM messages ORDER BY id DESC"
        )
        return [
            Message(id_, datetime.fromisoformat(time), tuple(json.loads(to)), subject, text, html)
            for id_, time, to, subject, text, html in rows
        ]

    def clear(self) -> None:
        """Delete all messages; ids are not reused."""
        with self._connection as connection:
            connection.execute("DELETE FROM messages")

    def count(self) -> int:
        """Return the number of messages."""
        (count,) = self._connection.execute("SELECT count(*) FROM messages").fetchone()
        return int(count)
