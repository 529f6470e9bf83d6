"""Document storage: answers to file fields, and the file repository."""

import sqlite3
from dataclasses import dataclass

from sandbox.redcap.store import server_time

MAX_BYTES = 32 * 1024 * 1024
"""Maximum size of a document."""


@dataclass(frozen=True)
class Document:
    """A stored file."""

    id: int
    name: str
    mime: str
    content: bytes


def add(
    db: sqlite3.Connection,
    project_id: int,
    *,
    name: str,
    mime: str,
    content: bytes,
    folder_id: int | None = None,
) -> int:
    """Store a document, in a repository folder if given (0 is the root); return its number."""
    cursor = db.execute(
        "INSERT INTO document (project_id, name, mime, content, stored_at, in_repository,"
        " folder_id) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            project_id,
            name,
            mime or "application/octet-stream",
            content,
            server_time(),
            folder_id is not None,
            folder_id or 0,
        ),
    )
    return int(cursor.lastrowid or 0)


def get(
    db: sqlite3.Connection, project_id: int, number: int, *, repository: bool = False
) -> Document | None:
    """Return a document of a project, from either the repository or the answers."""
    row = db.execute(
        "SELECT id, name, mime, content FROM document"
        " WHERE project_id = ? AND id = ? AND in_repository = ?",
        (project_id, number, repository),
    ).fetchone()
    return None if row is None else Document(*row)


def delete(db: sqlite3.Connection, project_id: int, number: int) -> None:
    """Remove a document."""
    db.execute("DELETE FROM document WHERE project_id = ? AND id = ?", (project_id, number))


def add_folder(db: sqlite3.Connection, project_id: int, *, name: str, parent_id: int) -> int:
    """Create a folder in the repository; return its number."""
    cursor = db.execute(
        "INSERT INTO folder (project_id, parent_id, name) VALUES (?, ?, ?)",
        (project_id, parent_id, name),
    )
    return int(cursor.lastrowid or 0)


def folder_exists(db: sqlite3.Connection, project_id: int, number: int) -> bool:
    """Return whether the repository has a folder with that number."""
    return bool(
        db.execute(
            "SELECT 1 FROM folder WHERE project_id = ? AND id = ?", (project_id, number)
        ).fetchone()
    )


def list_folder(
    db: sqlite3.Connection, project_id: int, number: int
) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """Return numbers and names of the folders and documents in a folder; 0 is the root."""
    folders = db.execute(
        "SELECT id, name FROM folder WHERE project_id = ? AND parent_id = ? ORDER BY id",
        (project_id, number),
    ).fetchall()
    files = db.execute(
        "SELECT id, name FROM document WHERE project_id = ? AND in_repository = 1"
        " AND folder_id = ? ORDER BY id",
        (project_id, number),
    ).fetchall()
    return folders, files
