"""Survey responses: links of a record's instruments and their progress.

A response is created when its link is first requested; the link never changes.
"""

import base64
import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sandbox.redcap.records.storage import Place
from sandbox.redcap.store import server_time

NOT_COMPLETED = "[not completed]"
"""Exported timestamp of a partial response."""


@dataclass(frozen=True)
class Response:
    """One respondent's survey."""

    hash: str
    project_id: int
    record: str
    place: Place
    """Place of the answers; names the instrument even if it does not repeat."""
    access_code: str
    return_code: str
    started_at: str
    completed_at: str
    page: int

    @property
    def status(self) -> int:
        """0 not started, 1 partial, 2 completed."""
        return 2 if self.completed_at else 1 if self.started_at else 0


_COLUMNS = (
    "hash, project_id, record, event_id, instrument, instance, access_code, return_code,"
    " started_at, completed_at, page"
)


def obtain(db: sqlite3.Connection, project_id: int, record: str, place: Place) -> Response:
    """Return the response of an instrument at a place, creating it if needed; requires a writer."""
    _insert(db, project_id, [(record, place)])
    found = peek(db, project_id, record, place)
    if found is None:
        raise LookupError("A survey response disappeared while it was being created.")
    return found


def _insert(db: sqlite3.Connection, project_id: int, new: Iterable[tuple[str, Place]]) -> None:
    db.executemany(
        "INSERT OR IGNORE INTO response (hash, project_id, record, event_id, instrument,"
        " instance, access_code, return_code) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        ((_code(16), project_id, name, *place, _code(9), _code(8)) for name, place in new),
    )


def peek(db: sqlite3.Connection, project_id: int, record: str, place: Place) -> Response | None:
    """Return the survey response of an instrument at a place, if one exists."""
    return _one(
        db.execute(
            f"SELECT {_COLUMNS} FROM response WHERE project_id = ? AND record = ?"  # noqa: S608
            " AND event_id = ? AND instrument = ? AND instance = ?",
            (project_id, record, *place),
        )
    )


def by_hash(db: sqlite3.Connection, code: str) -> Response | None:
    """Return the response of a link."""
    return _one(
        db.execute(f"SELECT {_COLUMNS} FROM response WHERE hash = ?", (code,))  # noqa: S608
    )


def of_survey(
    db: sqlite3.Connection, project_id: int, event_id: int, instrument: str, *, repeats: bool
) -> list[Response]:
    """Return the responses of a survey at an event, in order of records; requires a writer.

    Includes every record with a row at the event; creates missing links.
    """
    at = {
        "project": project_id,
        "event": event_id,
        "form": instrument,
        "rows": instrument if repeats else "",
    }
    missing = db.execute(
        "SELECT record, instance FROM entry e WHERE project_id = :project AND event_id = :event"
        " AND instrument = :rows AND NOT EXISTS (SELECT 1 FROM response r"
        " WHERE r.project_id = e.project_id AND r.record = e.record AND r.event_id = :event"
        " AND r.instrument = :form AND r.instance = e.instance)",
        at,
    ).fetchall()
    _insert(db, project_id, [(name, Place(event_id, instrument, n)) for name, n in missing])
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM response WHERE project_id = :project"  # noqa: S608
        " AND event_id = :event AND instrument = :form ORDER BY"
        " (SELECT sort_key FROM record r WHERE r.project_id = response.project_id"
        "  AND r.name = response.record), record, instance",
        at,
    )
    return [_response(row) for row in rows]


def completed_count(db: sqlite3.Connection, project_id: int, instrument: str) -> int:
    """Return the number of completed responses of a survey."""
    (count,) = db.execute(
        "SELECT COUNT(*) FROM response WHERE project_id = ? AND instrument = ?"
        " AND completed_at <> ''",
        (project_id, instrument),
    ).fetchone()
    return int(count)


def mark(db: sqlite3.Connection, response: Response, *, page: int = 0, complete: bool) -> None:
    """Record that answers were submitted, and whether the survey is complete."""
    now = server_time()
    db.execute(
        "UPDATE response SET started_at = CASE started_at WHEN '' THEN :now ELSE started_at END,"
        " completed_at = CASE WHEN :complete THEN :now ELSE completed_at END, page = :page"
        " WHERE hash = :hash",
        {"now": now, "complete": complete, "page": page, "hash": response.hash},
    )


def timestamp(
    db: sqlite3.Connection, project_id: int, record: str, *, form: str, place: Place
) -> str:
    """Return the exported completion time of a survey; blank if never started."""
    found = peek(db, project_id, record, Place(place.event_id, form, place.instance))
    if found is None or not found.status:
        return ""
    return found.completed_at or NOT_COMPLETED


def queue_hash(db: sqlite3.Connection, project_id: int, record: str) -> str:
    """Return the code of a record's survey queue, creating it if needed; requires a writer."""
    db.execute("INSERT OR IGNORE INTO queue VALUES (?, ?, ?)", (_code(16), project_id, record))
    (code,) = db.execute(
        "SELECT hash FROM queue WHERE project_id = ? AND record = ?", (project_id, record)
    ).fetchone()
    return str(code)


def queue_owner(db: sqlite3.Connection, code: str) -> tuple[int, str] | None:
    """Return the project and record of a survey queue."""
    row: tuple[int, str] | None = db.execute(
        "SELECT project_id, record FROM queue WHERE hash = ?", (code,)
    ).fetchone()
    return row


def _one(rows: sqlite3.Cursor) -> Response | None:
    row = rows.fetchone()
    return None if row is None else _response(row)


def _response(row: tuple[Any, ...]) -> Response:
    return Response(row[0], row[1], row[2], Place(*row[3:6]), *row[6:])


def _code(length: int) -> str:
    # Upper-case letters and digits, five random bits each.
    return base64.b32encode(secrets.token_bytes(length)).decode()[:length]
