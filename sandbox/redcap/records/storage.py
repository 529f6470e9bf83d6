"""Record storage: one row per record, event, repeating instrument and instance.

The answers of a row are one JSON object by field name: text, a list of checked
codes for a checkbox, ``{"doc": number, "name": file name}`` for a file.
"""

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from sandbox.redcap.filter_logic.prefilter import Required
from sandbox.redcap.store import folded_answer, index_name, server_time

Answer = str | list[str] | dict[str, str | int]
Answers = dict[str, Answer]


class Place(NamedTuple):
    """A place of answers in a record; no instrument and instance 1 unless repeating."""

    event_id: int
    instrument: str = ""
    instance: int = 1


@dataclass(frozen=True)
class Record:
    """One record with all its answers."""

    name: str
    group: str = ""
    entries: Mapping[Place, Answers] = field(default_factory=dict)

    def answers(self, place: Place) -> Answers:
        """Return the answers at *place*; empty if there are none."""
        return self.entries.get(place, {})


_DIGITS = re.compile(r"\d+")


def sort_key(name: str) -> str:
    """Return a natural sort key: 9 before 10, ``a2`` before ``a10``."""
    return _DIGITS.sub(_padded, name.casefold())


def _padded(match: re.Match[str]) -> str:
    digits = match.group().lstrip("0") or "0"
    return f"{len(digits):04d}{digits}"


_SELECT = """
    SELECT r.name, r.group_name, e.event_id, e.instrument, e.instance, e.answers
    FROM {source} JOIN entry e ON e.project_id = r.project_id AND e.record = r.name
    WHERE r.project_id = :project
      AND (:since = '' OR r.modified_at > :since)
      AND (:until = '' OR r.created_at < :until)
    ORDER BY r.sort_key, r.name
"""
_ALL = _SELECT.format(source="record r")
# The join starts from the names, so that finding a few records does not scan all of them.
_NAMED = _SELECT.format(
    source="(SELECT DISTINCT value FROM json_each(:names)) n"
    " CROSS JOIN record r ON r.name = n.value"
)
_HOLDING = _SELECT.format(
    source="(SELECT DISTINCT h.record AS value FROM entry h INDEXED BY {index}"
    " WHERE h.project_id = :project AND {folded} IN (SELECT value FROM json_each(:texts))) n"
    " CROSS JOIN record r ON r.name = n.value"
)


def stream(
    db: sqlite3.Connection,
    project_id: int,
    *,
    names: Iterable[str] | None = None,
    since: str = "",
    until: str = "",
    holding: Required | None = None,
) -> Iterator[Record]:
    """Yield records one at a time, in natural order of their names.

    Args:
        db: A connection in a transaction that lasts as long as the iteration.
        project_id: The project.
        names: Only these records; None for all.
        since: Only records created or modified after, ``YYYY-MM-DD HH:MM:SS``.
        until: Only records created or modified before.
        holding: A condition that some row of the record must meet, looked up in the field's index,
            which `sandbox.redcap.store.Store.index_answers` has created.
    """
    statement, texts = _ALL, ""
    if names is not None:
        statement = _NAMED
    elif holding is not None:
        statement = _HOLDING.format(
            index=index_name(holding.field), folded=folded_answer(holding.field, "h.")
        )
        texts = json.dumps([fold(text) for text in holding.texts])
    rows = db.execute(
        statement,
        {
            "project": project_id,
            "names": None if names is None else json.dumps(list(names)),
            "since": since,
            "until": until,
            "texts": texts,
        },
    )
    for name, group in groupby(rows, key=itemgetter(0)):
        found = list(group)
        entries = {Place(*row[2:5]): json.loads(row[5]) for row in found}
        yield Record(name, found[0][1], entries)


def fold(text: str) -> str:
    """Return *text* as SQLite's lower() does: ASCII letters only."""
    return "".join(char.lower() if char.isascii() else char for char in text)


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def find(db: sqlite3.Connection, project_id: int, name: str) -> Record | None:
    """Return one record, or None."""
    return next(stream(db, project_id, names=[name]), None)


def exists(db: sqlite3.Connection, project_id: int, name: str) -> bool:
    """Return whether a record of that name exists."""
    return bool(
        db.execute(
            "SELECT 1 FROM record WHERE project_id = ? AND name = ?", (project_id, name)
        ).fetchone()
    )


def existing(db: sqlite3.Connection, project_id: int, names: Iterable[str]) -> set[str]:
    """Return those of *names* that exist as records."""
    return {
        name
        for (name,) in db.execute(
            "SELECT name FROM record WHERE project_id = ?"
            " AND name IN (SELECT value FROM json_each(?))",
            (project_id, json.dumps(list(names))),
        )
    }


def canonical(db: sqlite3.Connection, project_id: int, names: Iterable[str]) -> dict[str, str]:
    """Return the stored spelling of those of *names* that exist, ignoring case.

    REDCap's database compares record names case-insensitively: ``R1`` and ``r1`` are one record.
    """
    found = db.execute(
        "SELECT n.value, r.name FROM (SELECT DISTINCT value FROM json_each(:names)) n"
        " CROSS JOIN record r ON r.project_id = :project AND r.name COLLATE NOCASE = n.value"
        " ORDER BY r.name = n.value",
        {"project": project_id, "names": json.dumps(list(names))},
    )
    return dict(found.fetchall())


def all_names(db: sqlite3.Connection, project_id: int) -> Iterator[str]:
    """Return the names of all records in natural order."""
    for (name,) in db.execute(
        "SELECT name FROM record WHERE project_id = ? ORDER BY sort_key, name", (project_id,)
    ):
        yield name


def next_number(db: sqlite3.Connection, project_id: int) -> int:
    """Return the highest integer name plus one."""
    (highest,) = db.execute(
        "SELECT MAX(number) FROM record WHERE project_id = ?", (project_id,)
    ).fetchone()
    return int(highest or 0) + 1


def create(db: sqlite3.Connection, project_id: int, name: str) -> bool:
    """Create an empty record; return False if it exists."""
    # SQLite integers have 63 bits; a longer name counts as text, not as a number.
    number = int(name) if name.isascii() and name.isdigit() and len(name) <= 18 else None
    now = server_time()
    cursor = db.execute(
        "INSERT OR IGNORE INTO record"
        " (project_id, name, sort_key, number, created_at, modified_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (project_id, name, sort_key(name), number, now, now),
    )
    return cursor.rowcount == 1


def read_entry(db: sqlite3.Connection, project_id: int, name: str, place: Place) -> Answers | None:
    """Return the answers at one place of a record; None if there is no row."""
    row = db.execute(
        "SELECT answers FROM entry WHERE project_id = ? AND record = ? AND event_id = ?"
        " AND instrument = ? AND instance = ?",
        (project_id, name, *place),
    ).fetchone()
    if row is None:
        return None
    answers: Answers = json.loads(row[0])
    return answers


def write_entry(
    db: sqlite3.Connection, project_id: int, name: str, place: Place, answers: Answers
) -> None:
    """Replace the answers at one place of a record."""
    db.execute(
        "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?)",
        (project_id, name, *place, _dump(answers)),
    )
    db.execute(
        "UPDATE record SET modified_at = ? WHERE project_id = ? AND name = ?",
        (server_time(), project_id, name),
    )


def group_of(db: sqlite3.Connection, project_id: int, name: str) -> str | None:
    """Return the data access group of a record, blank for none; None without a record."""
    row = db.execute(
        "SELECT group_name FROM record WHERE project_id = ? AND name = ?", (project_id, name)
    ).fetchone()
    return None if row is None else str(row[0])


def set_group(db: sqlite3.Connection, project_id: int, name: str, group: str) -> None:
    """Assign a record to a data access group, or remove it from its group."""
    db.execute(
        "UPDATE record SET group_name = ? WHERE project_id = ? AND name = ?",
        (group, project_id, name),
    )


def delete(db: sqlite3.Connection, project_id: int, name: str) -> None:
    """Remove a record with its answers and survey links."""
    key = (project_id, name)
    db.execute("DELETE FROM entry WHERE project_id = ? AND record = ?", key)
    db.execute("DELETE FROM response WHERE project_id = ? AND record = ?", key)
    db.execute("DELETE FROM queue WHERE project_id = ? AND record = ?", key)
    db.execute("DELETE FROM record WHERE project_id = ? AND name = ?", key)


def delete_entry(db: sqlite3.Connection, project_id: int, name: str, place: Place) -> None:
    """Remove the answers at one place of a record."""
    db.execute(
        "DELETE FROM entry WHERE project_id = ? AND record = ? AND event_id = ?"
        " AND instrument = ? AND instance = ?",
        (project_id, name, *place),
    )


def delete_event(db: sqlite3.Connection, project_id: int, event_id: int) -> None:
    """Delete the answers of all records at an event."""
    db.execute("DELETE FROM entry WHERE project_id = ? AND event_id = ?", (project_id, event_id))
    db.execute("DELETE FROM response WHERE project_id = ? AND event_id = ?", (project_id, event_id))


def rename(db: sqlite3.Connection, project_id: int, old: str, new: str) -> None:
    """Rename a record everywhere; links keep working."""
    create(db, project_id, new)
    db.execute(
        "UPDATE record SET (group_name, created_at) = (SELECT group_name, created_at FROM record"
        " WHERE project_id = :project AND name = :old) WHERE project_id = :project AND name = :new",
        {"project": project_id, "old": old, "new": new},
    )
    key = (new, project_id, old)
    db.execute("UPDATE entry SET record = ? WHERE project_id = ? AND record = ?", key)
    db.execute("UPDATE response SET record = ? WHERE project_id = ? AND record = ?", key)
    db.execute("UPDATE queue SET record = ? WHERE project_id = ? AND record = ?", key)
    db.execute("DELETE FROM record WHERE project_id = ? AND name = ?", (project_id, old))
