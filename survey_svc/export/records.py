"""The user's answers as one file, JSON or CSV, in pieces that never hold the whole."""

import csv
import io
import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from survey_svc.ports import Project
from survey_svc.requests.rules import Row
from survey_svc.study.study import Study

BATCH = 200
"""How many records are asked for at a time."""
PIECE_BYTES = 64 * 1024

_FORMULA = re.compile(r"^\s*[=+\-@\t\r＝＋－＠]")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


@dataclass(frozen=True)
class Format:
    """A file format: what it is called and how records become text."""

    media_type: str
    filename: str
    start: Callable[[Sequence[str]], str]
    """Makes what comes before the records from the names of the columns."""
    between: str
    """Comes between records, where ``records`` does not end each."""
    records: Callable[[Sequence[Row], Sequence[str]], str]
    """Makes text of some records from their columns."""
    end: str


async def export(study: Study, project: Project, user: str, form: Format) -> AsyncGenerator[bytes]:
    """Yield the user's answers, labels instead of codes; nothing when REDCap does not give them.

    The first piece comes when REDCap has answered the first batch, so that its faults are still
    faults of the call.
    """
    columns = study.dictionary.columns_of(study.profile.export)
    ids = await project.records(user)
    buffer = bytearray()
    first = True
    for at in range(0, len(ids), BATCH):
        rows = await project.answers(user, ids[at : at + BATCH])
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
    """Return *value* so that no spreadsheet takes it for a formula; numbers stay numbers.

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
