"""The user's answers as an Excel workbook, with the codebook on a second sheet."""

import asyncio
import io
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime

import xlsxwriter

from mesh.chassis.errors import InvalidRequestError, Violation
from survey_svc.export.codebook import COLUMNS, codebook
from survey_svc.export.records import PIECE_BYTES, answers, columns_of
from survey_svc.ports import Project
from survey_svc.requests.rules import Row
from survey_svc.study.study import Study

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
FILENAME = "export.xlsx"
MAX_ROWS = 2000
"""A workbook is built in memory, about 20 KB per request; CSV has no such limit."""
MAX_CELL = 32_767
"""Maximum number of characters of an Excel cell."""
CUT = " … [truncated, see the CSV export]"


async def export(
    study: Study, project: Project, user: str, since: datetime | None = None
) -> AsyncGenerator[bytes]:
    """Yield the workbook in pieces; nothing if REDCap fails.

    Raises:
        InvalidRequestError: There are more than `MAX_ROWS` requests.
    """
    columns: Sequence[str] = columns_of(study)
    rows: list[Row] = []
    async for batch in answers(study, project, user, since):
        rows += batch
        if len(rows) > MAX_ROWS:
            raise InvalidRequestError(
                f"A workbook contains at most {MAX_ROWS:,} requests. Use CSV, or "
                "limit it with since.",
                violations=[
                    Violation("format", "must be csv or json above this limit", "workbook")
                ],
            )
    if rows:
        columns = list(rows[0])
    book = codebook(study)
    sheets = {"Answers": (columns, rows), "Codebook": (COLUMNS, book)}
    data = await asyncio.to_thread(_build, sheets)
    for at in range(0, len(data), PIECE_BYTES):
        yield data[at : at + PIECE_BYTES]


async def codebook_alone(study: Study) -> AsyncGenerator[bytes]:
    """Yield a workbook that holds only the codebook."""
    book = codebook(study)
    yield await asyncio.to_thread(_build, {"Codebook": (COLUMNS, book)})


def _build(sheets: Mapping[str, tuple[Sequence[str], Sequence[Row]]]) -> bytes:
    target = io.BytesIO()
    with xlsxwriter.Workbook(target, {"in_memory": True}) as workbook:
        header = workbook.add_format({"bold": True})
        for name, (columns, rows) in sheets.items():
            sheet = workbook.add_worksheet(name)
            sheet.freeze_panes(1, 0)
            for at, column in enumerate(columns):
                sheet.write_string(0, at, column, header)
            for number, row in enumerate(rows, start=1):
                for at, column in enumerate(columns):
                    # Always text, never a formula, a link or a number: answers remain unchanged.
                    sheet.write_string(number, at, _fitting(row.get(column, "")))
    return target.getvalue()


def _fitting(text: str) -> str:
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - len(CUT)] + CUT
