"""Export files: media type, name and content."""

from collections.abc import AsyncGenerator
from datetime import datetime

from mesh.chassis.errors import InvalidRequestError, Violation
from survey_svc.export import workbook
from survey_svc.export.codebook import COLUMNS, codebook
from survey_svc.export.records import FORMATS, Format, export, whole
from survey_svc.ports import Project
from survey_svc.study.study import Study

XLSX = "xlsx"

File = tuple[str, str, AsyncGenerator[bytes]]
"""Media type, name and content; with an empty name, browsers display the file."""


def data_file(
    study: Study, project: Project, user: str, *, form: str, since: str, only_codebook: bool
) -> File:
    """Return the requested export.

    Args:
        study: The study being served.
        project: Its REDCap project.
        user: Whose answers.
        form: ``json``, ``csv``, ``xlsx``, or empty for ``json``.
        since: RFC 3339 time; only requests created or changed since then. Empty for all.
        only_codebook: Return the codebook instead of the answers.

    Raises:
        InvalidRequestError: *since* is not a time.
    """
    if form == XLSX:
        name = "codebook.xlsx" if only_codebook else workbook.FILENAME
        pieces = (
            workbook.codebook_alone(study)
            if only_codebook
            else workbook.export(study, project, user, _time(since))
        )
        return workbook.MEDIA_TYPE, name, pieces
    text = FORMATS[form]
    if only_codebook:
        name = text.filename.replace("export", "codebook")
        return text.media_type, name, _codebook(study, text)
    return text.media_type, text.filename, export(study, project, user, text, _time(since))


async def _codebook(study: Study, form: Format) -> AsyncGenerator[bytes]:
    yield whole(codebook(study), COLUMNS, form)


def _time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        # REDCap writes four-digit years, and time zone conversions need a margin at both ends.
        if time.tzinfo is None or not 1900 <= time.year <= 9000:
            raise ValueError(text)
    except ValueError as exc:
        raise InvalidRequestError(
            "The parameter since is not a time; write it as 2026-11-29T08:00:00Z.",
            violations=[Violation("since", "must be an RFC 3339 time", "time")],
        ) from exc
    return time
