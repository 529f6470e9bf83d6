"""SQLite storage: one writer at a time, without blocking readers.

Client input is passed as bound parameters; only validated field names become part of a statement.
"""

import hashlib
import queue
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from sandbox.redcap.design import project as projects
from sandbox.redcap.design.project import Project

_SCHEMA = """
CREATE TABLE IF NOT EXISTS project (
    id INTEGER PRIMARY KEY, revision INTEGER NOT NULL, design TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS token (
    sha256 TEXT PRIMARY KEY, project_id INTEGER NOT NULL, username TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS record (
    project_id INTEGER NOT NULL, name TEXT NOT NULL, sort_key TEXT NOT NULL,
    number INTEGER, group_name TEXT NOT NULL DEFAULT '',
    created_at TEXT NOT NULL, modified_at TEXT NOT NULL,
    PRIMARY KEY (project_id, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS record_order ON record (project_id, sort_key, name);
CREATE INDEX IF NOT EXISTS record_folded ON record (project_id, name COLLATE NOCASE);
CREATE INDEX IF NOT EXISTS record_number ON record (project_id, number);
CREATE TABLE IF NOT EXISTS entry (
    project_id INTEGER NOT NULL, record TEXT NOT NULL, event_id INTEGER NOT NULL,
    instrument TEXT NOT NULL, instance INTEGER NOT NULL, answers TEXT NOT NULL,
    PRIMARY KEY (project_id, record, event_id, instrument, instance)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS response (
    hash TEXT PRIMARY KEY, project_id INTEGER NOT NULL, record TEXT NOT NULL,
    event_id INTEGER NOT NULL, instrument TEXT NOT NULL, instance INTEGER NOT NULL,
    access_code TEXT NOT NULL, return_code TEXT NOT NULL,
    started_at TEXT NOT NULL DEFAULT '', completed_at TEXT NOT NULL DEFAULT '',
    page INTEGER NOT NULL DEFAULT 0,
    UNIQUE (project_id, record, event_id, instrument, instance)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queue (
    hash TEXT PRIMARY KEY, project_id INTEGER NOT NULL, record TEXT NOT NULL,
    UNIQUE (project_id, record)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS document (
    id INTEGER PRIMARY KEY AUTOINCREMENT, project_id INTEGER NOT NULL, name TEXT NOT NULL,
    mime TEXT NOT NULL, content BLOB NOT NULL, stored_at TEXT NOT NULL,
    in_repository INTEGER NOT NULL DEFAULT 0, folder_id INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS folder (
    id INTEGER PRIMARY KEY AUTOINCREMENT, project_id INTEGER NOT NULL,
    parent_id INTEGER NOT NULL DEFAULT 0, name TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS log (
    id INTEGER PRIMARY KEY AUTOINCREMENT, project_id INTEGER NOT NULL, at TEXT NOT NULL,
    username TEXT NOT NULL, kind TEXT NOT NULL, action TEXT NOT NULL,
    details TEXT NOT NULL, record TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS log_order ON log (project_id, id);
"""

_BUSY_MS = 20_000
MAX_INDEXES = 16
"""Maximum number of indexed fields; each index slows down imports."""
_INDEX = "entry_value_"
_FIELD = re.compile(r"[a-z][a-z0-9_]*")


def server_time() -> str:
    """The current time (UTC) in REDCap's format."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")


class Store:
    """The sandbox's data; safe to use from any number of threads.

    Args:
        path: The SQLite file, created with its tables if missing.

    Raises:
        sqlite3.Error: The file cannot be opened or is not a database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._writer = threading.Lock()
        self._designs: dict[int, tuple[int, Project]] = {}
        self._closed = False
        try:
            self._indexed = self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> set[str]:
        """Create missing tables and return the indexed fields."""
        with self._connection() as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_SCHEMA)
            return {
                name.removeprefix(_INDEX)
                for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'index'")
                if name.startswith(_INDEX)
            }

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open a consistent read transaction."""
        with self._connection() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction; it is rolled back on any exception."""
        with self._writer, self._connection() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite itself may have rolled back, for example if full.
                    db.execute("ROLLBACK")
                raise

    def index_answers(self, field: str) -> bool:
        """Index the answers to *field*, so that filtering on it does not scan every record.

        Returns:
            Whether there is an index; False for an invalid name, or beyond `MAX_INDEXES`.
        """
        if field in self._indexed:
            return True
        if len(self._indexed) >= MAX_INDEXES or not _FIELD.fullmatch(field):
            return False
        with self.writing() as db:
            db.execute(
                f"CREATE INDEX IF NOT EXISTS {index_name(field)}"
                f" ON entry (project_id, {folded_answer(field)})"
            )
        self._indexed.add(field)
        return True

    def close(self) -> None:
        """Close every connection; those in use close when they are released."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def project(self, db: sqlite3.Connection, project_id: int) -> Project:
        """Return a project's design as of *db*'s transaction; parsed once per revision.

        Not for a design saved in the same transaction: only committed designs may be cached.
        """
        (revision,) = db.execute(
            "SELECT revision FROM project WHERE id = ?", (project_id,)
        ).fetchone()
        known = self._designs.get(project_id)
        if known is None or known[0] != revision:
            (design,) = db.execute(
                "SELECT design FROM project WHERE id = ?", (project_id,)
            ).fetchone()
            known = (revision, projects.load(project_id, design))
            self._designs[project_id] = known
        return known[1]

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        db = self._take()
        try:
            yield db
        finally:
            self._idle.put(db)
            if self._closed:
                self._close_idle()

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            # Any free thread may continue a streamed export, one at a time.
            db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            try:
                db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
                db.execute("PRAGMA synchronous = NORMAL")
            except BaseException:
                db.close()
                raise
            return db


def index_name(field: str) -> str:
    """Return the name of the index on the answers to *field*."""
    if not _FIELD.fullmatch(field):
        raise ValueError(f"not a field name: {field!r}")
    return f"{_INDEX}{field}"


def folded_answer(field: str, table: str = "") -> str:
    """Return the SQL expression that is indexed: the answer to *field* in lower case (ASCII).

    SQLite uses an expression index only for the identical expression, so the name cannot be a
    bound parameter.
    """
    if not _FIELD.fullmatch(field):
        raise ValueError(f"not a field name: {field!r}")
    return f"lower(json_extract({table}answers, '$.{field}'))"


def add_project(db: sqlite3.Connection, design: Project) -> int:
    """Store a new project and return its number."""
    cursor = db.execute(
        "INSERT INTO project (revision, design) VALUES (1, ?)", (projects.dump(design),)
    )
    assert cursor.lastrowid is not None  # noqa: S101 - an INSERT always has one
    return cursor.lastrowid


def save_project(db: sqlite3.Connection, design: Project) -> None:
    """Replace the design of a project."""
    db.execute(
        "UPDATE project SET revision = revision + 1, design = ? WHERE id = ?",
        (projects.dump(design), design.id),
    )


def project_ids(db: sqlite3.Connection) -> list[int]:
    """Return the numbers of all projects, oldest first."""
    return [number for (number,) in db.execute("SELECT id FROM project ORDER BY id")]


def add_token(db: sqlite3.Connection, token: str, project_id: int, username: str) -> None:
    """Register *token* for *username* in a project; only its hash is stored."""
    db.execute(
        "INSERT OR REPLACE INTO token VALUES (?, ?, ?)", (_digest(token), project_id, username)
    )


def find_token(db: sqlite3.Connection, token: str) -> tuple[int, str] | None:
    """Return the project and user of *token*."""
    row: tuple[int, str] | None = db.execute(
        "SELECT project_id, username FROM token WHERE sha256 = ?", (_digest(token),)
    ).fetchone()
    return row


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
