"""Audit log of a project."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from sandbox.redcap.store import server_time

DESIGN = "Manage/Design "
"""Action of design changes; the trailing space is REDCap's."""


@dataclass(frozen=True)
class Event:
    """One entry of the log."""

    timestamp: str
    username: str
    action: str
    details: str
    record: str


@dataclass(frozen=True)
class Search:
    """A log filter; blanks match everything."""

    kind: str = ""
    user: str = ""
    record: str = ""
    group: str = ""
    begin: str = ""
    end: str = ""


def add(
    db: sqlite3.Connection,
    project_id: int,
    username: str,
    *,
    kind: str,
    action: str,
    details: str = "",
    record: str = "",
) -> None:
    """Log an action of *username*; *kind* is a ``logtype`` of the API."""
    db.execute(
        "INSERT INTO log (project_id, at, username, kind, action, details, record)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (project_id, server_time(), username, kind, action, details, record),
    )


def read(db: sqlite3.Connection, project_id: int, search: Search) -> Iterator[Event]:
    """Yield the entries that match *search*, newest first."""
    rows = db.execute(
        """
        SELECT at, username, action, details, record FROM log
        WHERE project_id = :project
          AND (:kind = '' OR kind = :kind
               OR (:kind = 'record' AND kind IN ('record_add', 'record_edit', 'record_delete')))
          AND (:user = '' OR username = :user)
          AND (:record = '' OR record = :record)
          AND (:group = '' OR record IN (SELECT name FROM record r
               WHERE r.project_id = :project AND r.group_name = :group))
          AND (:begin = '' OR at >= :begin) AND (:end = '' OR at <= :end)
        ORDER BY id DESC
        """,
        {
            "project": project_id,
            "kind": search.kind,
            "user": search.user,
            "record": search.record,
            "group": search.group,
            "begin": search.begin,
            "end": search.end,
        },
    )
    for at, username, action, details, record in rows:
        yield Event(at[:16], username, action, details, record)
