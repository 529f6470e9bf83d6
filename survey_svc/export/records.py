"""Streams the user's answers as a JSON or CSV file."""

import csv
import io
import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from survey_svc.ports import Project
from survey_svc.requests.rules import Row
from survey_svc.study.study import Study

BATCH = 200
"""Number of records per REDCap call."""
PIECE_BYTES = 64 * 1024

_FORMULA = re.compile(r"^\s*[=+\-@\t\r＝＋－＠]")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


@dataclass(frozen=True)
class Format:
    """A file format: its name, and how to write records."""

    media_type: str
    filename: str
    start: Callable[[Sequence[str]], str]
    """Returns the header for the given column names."""
    between: str
    """Separator between records, if ``records`` does not terminate them."""
    records: Callable[[Sequence[Row], Sequence[str]], str]
    """Formats some records with the given columns."""
    end: str


def columns_of(study: Study) -> list[str]:
    """Return the columns of an export: those of the exported forms, then the request's id."""
    record = study.profile.variables.record
    exported = study.dictionary.columns_of(study.profile.export)
    return [*(name for name in exported if name != record), record]


async def answers(
    study: Study, project: Project, user: str, since: datetime | None = None
) -> AsyncGenerator[Sequence[Row]]:
    """Yield the user's answers in batches, with labels instead of codes.

    Args:
        study: The study being served.
        project: Its REDCap project.
        user: Whose answers.
        since: Only requests created or changed since then; None for all.
    """
    ids = await project.records(user, since)
    for at in range(0, len(ids), BATCH):
        yield await project.answers(user, ids[at : at + BATCH])


async def export(
    study: Study, project: Project, user: str, form: Format, since: datetime | None = None
) -> AsyncGenerator[bytes]:
    """Yield the user's answers as a file in pieces; nothing if REDCap fails.

    The first piece is yielded after REDCap's response to the first batch, so that an early error
    is still an error of the call.
    """
    columns = columns_of(study)
    buffer = bytearray()
    first = True
    async for rows in answers(study, project, user, since):
        if first and rows:
            columns = list(rows[0])
            buffer += form.start(columns).encode()
        if rows:
            buffer += ("" if first else form.between).encode()
            buffer += form.records(rows, columns).encode()
            first = False
        while len(buffer) >= PIECE_BYTES:
            yield bytes(buffer[:PIECE_BYTES])
            del buffer[:PIECE_BYTES]
    if first:
        buffer += form.start(columns).encode()
    buffer += form.end.encode()
    yield bytes(buffer)


def whole(rows: Sequence[Row], columns: Sequence[str], form: Format) -> bytes:
    """Return a small table as a whole file."""
    return f"{form.start(columns)}{form.records(rows, columns)}{form.end}".encode()


def _json_records(rows: Sequence[Row], _: Sequence[str]) -> str:
    return ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def _csv_header(columns: Sequence[str]) -> str:
    return _csv([columns])


def _csv_records(rows: Sequence[Row], columns: Sequence[str]) -> str:
    return _csv([[harmless(row.get(column, "")) for column in columns] for row in rows])


def _csv(lines: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(lines)
    return text.getvalue()


def harmless(value: str) -> str:
    """Escape *value* so that no spreadsheet evaluates it as a formula; numbers are unchanged.

    Source:
        OWASP, CSV injection.
    """
    if _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


JSON = Format(
    "application/json", "", start=lambda _: "[", between=",\n", records=_json_records, end="]"
)
CSV = Format(
    "text/csv; charset=utf-8",
    "export.csv",
    start=_csv_header,
    between="",
    records=_csv_records,
    end="",
)
FORMATS = {"": JSON, "json": JSON, "csv": CSV}
"""Text formats by their name in the contract."""
