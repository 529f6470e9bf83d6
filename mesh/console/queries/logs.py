"""Log search by trace, service, level and text, newest first; and live tail, oldest first."""

import json
import re
import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from mesh.console.clock import rfc3339
from mesh.console.store.reader import (
    BadRequestError,
    from_token,
    service_id,
    service_names,
    to_token,
)

SCAN_SECONDS = 0.07
SCANNED_AT_ONCE = 20_000
LEVELS = {
    "trace": 1,
    "debug": 5,
    "info": 9,
    "warning": 13,
    "warn": 13,
    "error": 17,
    "critical": 21,
    "fatal": 21,
}
"""The lowest severity number of each level."""
_FOREVER = 2**62
_TRACE_ID = re.compile(r"[0-9a-fA-F]{32}")
_WILDCARD = re.compile(r"[\\%_]")


@dataclass(frozen=True)
class Search:
    """Search conditions; empty values match everything."""

    trace_id: str = ""
    service: str = ""
    level: str = ""
    """The minimum level."""
    kind: str = ""
    """Kind of record: ``access``, ``error``, ``slow``, ``security`` or ``event``."""
    text: str = ""
    """Part of the message or of an attribute; case-insensitive for ASCII."""
    since: int = 0
    until: int = 0
    limit: int = 100
    token: str = ""


def search(db: sqlite3.Connection, wanted: Search) -> tuple[list[dict[str, Any]], str]:
    """
    Return records, newest first, and the token of the next page.

    As with traces, a page may be short and still have a next page.

    Raises:
        BadRequestError: The level, the trace id or the token is invalid.
    """
    condition = _conditions(db, wanted)
    newest, key = (wanted.until or _FOREVER, 0)
    if wanted.token:
        newest, key = from_token(wanted.token, 2)
    if condition is None:
        return [], ""
    where, values = condition
    found: list[sqlite3.Row] = []
    ends = time.monotonic() + SCAN_SECONDS
    while True:
        oldest = _window(db, wanted, newest)
        found += db.execute(
            "SELECT * FROM logs WHERE at <= ? AND (at < ? OR id < ?) AND at >= ?"  # noqa: S608 - fixed
            f"{where} ORDER BY at DESC, id DESC LIMIT ?",
            (newest, newest, key, oldest, *values, wanted.limit - len(found)),
        ).fetchall()
        if len(found) == wanted.limit:
            return _records(db, found), to_token(found[-1]["at"], found[-1]["id"])
        if oldest <= wanted.since:
            return _records(db, found), ""
        newest, key = oldest, 0
        if time.monotonic() > ends:
            return _records(db, found), to_token(newest, key)


def since_id(db: sqlite3.Connection, wanted: Search, last: int) -> tuple[list[dict[str, Any]], int]:
    """Return the records after *last*, oldest first, and the id of the new last record."""
    (latest,) = db.execute("SELECT ifnull(max(id), 0) FROM logs").fetchone()
    condition = _conditions(db, wanted)
    if condition is None:
        return [], latest
    where, values = condition
    rows = db.execute(
        f"SELECT * FROM logs WHERE id > ? AND id <= ?{where} ORDER BY id LIMIT ?",  # noqa: S608 - fixed
        (last, latest, *values, wanted.limit),
    ).fetchall()
    return _records(db, rows), rows[-1]["id"] if len(rows) == wanted.limit else latest


def start(db: sqlite3.Connection, wanted: Search) -> int:
    """
    Return the id from which to tail *wanted*: that of the last record before it begins.

    Raises:
        BadRequestError: As for `search`.
    """
    _conditions(db, wanted)
    row = db.execute(
        "SELECT ifnull(min(id) - 1, (SELECT ifnull(max(id), 0) FROM logs)) FROM logs WHERE at >= ?",
        (wanted.since or _FOREVER,),
    ).fetchone()
    return int(row[0])


def _window(db: sqlite3.Connection, wanted: Search, newest: int) -> int:
    """Return how far back to read in one query; unbounded if an index covers it."""
    if not (wanted.text or wanted.kind):
        return wanted.since
    row = db.execute(
        "SELECT at FROM logs WHERE at < ? AND at >= ? ORDER BY at DESC LIMIT 1 OFFSET ?",
        (newest, wanted.since, SCANNED_AT_ONCE),
    ).fetchone()
    return row[0] if row else wanted.since


def _conditions(db: sqlite3.Connection, wanted: Search) -> tuple[str, list[Any]] | None:
    where, values = "", list[Any]()
    if wanted.trace_id:
        if not _TRACE_ID.fullmatch(wanted.trace_id):
            raise BadRequestError("trace_id must be 32 hexadecimal characters.")
        where += " AND trace_id = ? AND trace_id != x''"  # The condition of the index.
        values.append(bytes.fromhex(wanted.trace_id))
    if wanted.service:
        service = service_id(db, wanted.service)
        if not service:
            return None
        where += " AND service = ?"
        values.append(service)
    if wanted.level:
        least = LEVELS.get(wanted.level.lower())
        if least is None:
            raise BadRequestError(f"level must be one of {', '.join(LEVELS)}.")
        where += f" AND level >= {least}"
        if least >= LEVELS["warning"]:
            where += " AND level >= 13"  # The exact condition of the partial index logs_bad.
    if wanted.kind:
        where += " AND instr(attributes, ?)"
        values.append(f'"kind":{json.dumps(wanted.kind)}')
    if wanted.text:
        where += " AND (body LIKE ? ESCAPE '\\' OR attributes LIKE ? ESCAPE '\\')"
        in_attributes = json.dumps(wanted.text, ensure_ascii=False)[1:-1]
        values += [_containing(wanted.text), _containing(in_attributes)]
    return where, values


def _containing(text: str) -> str:
    """Return the LIKE pattern of what contains *text*."""
    escaped = _WILDCARD.sub(r"\\\g<0>", text)
    return f"%{escaped}%"


def _records(db: sqlite3.Connection, rows: list[sqlite3.Row]) -> list[dict[str, Any]]:
    services = service_names(db)
    return [
        {
            "id": row["id"],
            "at": rfc3339(row["at"]),
            "service": services.get(row["service"], ""),
            "instance": row["instance"],
            "level": level_name(row["level"]),
            "traceId": row["trace_id"].hex(),
            "spanId": row["span_id"].hex(),
            "message": row["body"],
            "attributes": json.loads(row["attributes"]),
        }
        for row in rows
    ]


def level_name(number: int) -> str:
    """Return the level of an OTLP severity number; ``info`` if unspecified."""
    names = ("trace", "debug", "info", "warning", "error", "fatal")
    return names[(number - 1) // 4] if number else "info"
