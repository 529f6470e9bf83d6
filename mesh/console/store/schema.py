"""
The database file: its schema, opening it, and recovery from a damaged file.

Names of spans and rpcs are interned in ``names``. The indexes of ``spans`` cover the search
conditions, so that a search reads only the rows that it returns. An edge has two counts: from spans
and, where ``counted`` is 1, from counters, which sampling does not affect.
"""

import contextlib
import sqlite3
import time
from pathlib import Path

VERSION = 6
SCHEMA = """
CREATE TABLE names (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE services (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    spans INTEGER NOT NULL DEFAULT 0, span_bytes INTEGER NOT NULL DEFAULT 0,
    logs INTEGER NOT NULL DEFAULT 0, log_bytes INTEGER NOT NULL DEFAULT 0,
    last INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE traces (
    id INTEGER PRIMARY KEY, trace_id BLOB NOT NULL UNIQUE,
    start INTEGER NOT NULL, finish INTEGER NOT NULL,
    spans INTEGER NOT NULL, errors INTEGER NOT NULL, probe INTEGER NOT NULL,
    root INTEGER NOT NULL, named_at INTEGER NOT NULL, name INTEGER NOT NULL,
    service INTEGER NOT NULL, rpc INTEGER NOT NULL, code TEXT NOT NULL
);
CREATE INDEX traces_start ON traces (start, probe, errors);
CREATE TABLE spans (
    id INTEGER PRIMARY KEY, trace INTEGER NOT NULL, span_id BLOB NOT NULL, parent_id BLOB NOT NULL,
    service INTEGER NOT NULL, instance TEXT NOT NULL, name INTEGER NOT NULL, rpc INTEGER NOT NULL,
    kind INTEGER NOT NULL, proxy INTEGER NOT NULL, start INTEGER NOT NULL,
    duration INTEGER NOT NULL, error INTEGER NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL,
    probe INTEGER NOT NULL, attributes TEXT NOT NULL, events TEXT NOT NULL
);
CREATE UNIQUE INDEX spans_trace ON spans (trace, span_id);
CREATE INDEX spans_service ON spans (service, start, duration, rpc, probe, error, trace);
CREATE INDEX spans_rpc ON spans (rpc, start, duration, service, probe, error, trace);
CREATE INDEX spans_start ON spans (start, duration, service, rpc, probe, error, trace);
CREATE INDEX spans_error ON spans (start, duration, service, rpc, probe, trace) WHERE error = 1;
CREATE TABLE links (
    trace INTEGER NOT NULL, span_id BLOB NOT NULL,
    to_trace BLOB NOT NULL, to_span BLOB NOT NULL, attributes TEXT NOT NULL,
    PRIMARY KEY (trace, span_id, to_trace, to_span)
) WITHOUT ROWID;
CREATE INDEX links_back ON links (to_trace);
CREATE TABLE logs (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, service INTEGER NOT NULL, instance TEXT NOT NULL,
    level INTEGER NOT NULL, trace_id BLOB NOT NULL, span_id BLOB NOT NULL,
    body TEXT NOT NULL, attributes TEXT NOT NULL
);
CREATE INDEX logs_at ON logs (at);
CREATE INDEX logs_service ON logs (service, at);
CREATE INDEX logs_trace ON logs (trace_id) WHERE trace_id != x'';
CREATE INDEX logs_bad ON logs (at) WHERE level >= 13;
CREATE TABLE edges (
    minute INTEGER NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL, rpc TEXT NOT NULL,
    counted INTEGER NOT NULL,
    calls INTEGER NOT NULL, errors INTEGER NOT NULL, refused INTEGER NOT NULL,
    PRIMARY KEY (minute, source, target, rpc, counted)
) WITHOUT ROWID;
CREATE TABLE series (
    id INTEGER PRIMARY KEY, process TEXT NOT NULL, name TEXT NOT NULL, labels TEXT NOT NULL,
    kind TEXT NOT NULL, unit TEXT NOT NULL, scope TEXT NOT NULL, pushed INTEGER NOT NULL,
    UNIQUE (process, name, labels, kind, unit, scope, pushed)
);
CREATE INDEX series_name ON series (name);
CREATE TABLE points (
    series INTEGER NOT NULL, at INTEGER NOT NULL, value REAL NOT NULL, total REAL NOT NULL,
    buckets TEXT NOT NULL, started INTEGER NOT NULL, PRIMARY KEY (series, at)
) WITHOUT ROWID;
CREATE TABLE calls (
    slot INTEGER NOT NULL, process TEXT NOT NULL, service TEXT NOT NULL, method TEXT NOT NULL,
    code TEXT NOT NULL, reason TEXT NOT NULL, calls REAL NOT NULL, seconds REAL NOT NULL,
    buckets TEXT NOT NULL
);
CREATE INDEX calls_slot ON calls (slot, service, method, code, calls, seconds);
CREATE TABLE exemplars (
    service TEXT NOT NULL, method TEXT NOT NULL, minute INTEGER NOT NULL, code TEXT NOT NULL,
    bound TEXT NOT NULL, at INTEGER NOT NULL, seconds REAL NOT NULL, trace_id BLOB NOT NULL,
    PRIMARY KEY (service, method, minute, code, bound)
) WITHOUT ROWID;
CREATE TABLE incidents (
    id TEXT PRIMARY KEY, since INTEGER NOT NULL, ended INTEGER NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX incidents_since ON incidents (since);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, started INTEGER NOT NULL, seen INTEGER NOT NULL,
    summary TEXT NOT NULL DEFAULT '{}'
);
"""


class DatabaseError(Exception):
    """The file cannot be opened; the message says why and what to do."""


class _OtherVersionError(sqlite3.DatabaseError):
    """The file was written by another version of the console."""


def open_writer(path: Path) -> sqlite3.Connection:
    """
    Open the file for writing; create it if missing.

    A damaged file, or one with another schema version, is renamed and replaced by a new one:
    starting the console matters more than old telemetry.

    Raises:
        DatabaseError: The folder is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _opened(path)
        except sqlite3.DatabaseError as exc:
            if isinstance(exc, sqlite3.OperationalError) and "malformed" not in str(exc):
                raise
            what = "other-version" if isinstance(exc, _OtherVersionError) else "damaged"
            aside = path.with_name(f"{path.name}.{what}-{time.time_ns()}")
            path.rename(aside)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            return _opened(path)
    except (OSError, sqlite3.Error) as exc:
        raise DatabaseError(
            f"The console database {path} cannot be opened ({exc}). "
            "Set AMARRE_CONSOLE_DATABASE to a file in a writable folder."
        ) from exc


def check_version(path: Path) -> None:
    """
    Check that an exported file is of this version.

    Raises:
        DatabaseError: It is not, or it is not a database.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            (found,) = db.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as exc:
        raise DatabaseError(f"{path} is not a file of `amarre export` ({exc}).") from exc
    if found != VERSION:
        raise DatabaseError(
            f"{path} has format {found}; this version of the console reads format {VERSION}. "
            "Open it with the version of AMARRE that exported it."
        )


def open_reader(path: Path) -> sqlite3.Connection:
    """Open the file read-only."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, check_same_thread=False)
    db.execute("PRAGMA cache_size = -8000")
    db.execute("PRAGMA mmap_size = 0")
    db.row_factory = sqlite3.Row
    return db


def _opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        # A crash of the machine may lose the last batches but does not corrupt the file.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA cache_size = -16000")
        db.execute("PRAGMA journal_size_limit = 33554432")
        db.execute("PRAGMA busy_timeout = 5000")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION:
            raise _OtherVersionError(f"the file has version {version}")
        db.execute("SELECT count(*) FROM services").fetchone()
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.close()
        raise
    return db
