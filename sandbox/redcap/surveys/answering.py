"""Survey rules: visibility, required answers, storage.

Independent of HTTP and HTML.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sandbox.redcap.api.params import Upload
from sandbox.redcap.design.dictionary import Field, checkbox_column, status_field
from sandbox.redcap.design.project import Project, Survey
from sandbox.redcap.design.validation import fault_of, format_of, to_stored
from sandbox.redcap.filter_logic.evaluate import Row, condition
from sandbox.redcap.records import documents
from sandbox.redcap.records import storage as records
from sandbox.redcap.records.calculations import Calculations
from sandbox.redcap.records.storage import Answers, Place, Record
from sandbox.redcap.surveys import responses
from sandbox.redcap.surveys.responses import Response

MISSING = "missing"
"""Error of a required field without an answer."""
BAD_FORMAT = "format"
"""Error of an answer that the field does not accept."""
TOO_LARGE = "size"
"""Error of a document above the size limit."""


@dataclass(frozen=True)
class Sheet:
    """One survey of one record, with the answers so far."""

    project: Project
    response: Response
    record: Record
    place: Place
    """Place of the answers."""

    @property
    def form(self) -> str:
        """The instrument."""
        return self.response.place.instrument

    @property
    def survey(self) -> Survey:
        """Its survey settings."""
        return self.project.surveys[self.form]

    @property
    def answers(self) -> Answers:
        """Stored answers at its place, including those of other forms."""
        return self.record.answers(self.place)

    @property
    def pages(self) -> tuple[tuple[Field, ...], ...]:
        """Fields by page; in a multi-page survey each section starts a page."""
        fields = self._asked()
        if not self.survey.question_by_section:
            return (tuple(fields),)
        pages: list[list[Field]] = [[]]
        for asked in fields:
            if asked.section_header and pages[-1]:
                pages.append([])
            pages[-1].append(asked)
        return tuple(map(tuple, pages))

    def row(self, answers: Answers) -> Row:
        """Return the row for evaluating logic, with *answers* at this place."""
        entries = {**self.record.entries, self.place: answers}
        place = Place(self.place.event_id, self.place.instrument, self.response.place.instance)
        return Row(Record(self.record.name, self.record.group, entries), place)

    def _asked(self) -> list[Field]:
        key = self.project.dictionary.record_id
        fields = self.project.dictionary.forms[self.form]
        return [f for f in fields if f.field_name != key and "@HIDDEN" not in f.field_annotation]


def open_sheet(db: sqlite3.Connection, project: Project, response: Response) -> Sheet | None:
    """Return the survey of a link; None if its record, event or survey was deleted."""
    at = response.place
    record = records.find(db, project.id, response.record)
    event = project.event_by_id.get(at.event_id)
    if record is None or event is None or at.instrument not in project.surveys:
        return None
    if at.instrument not in project.dictionary.forms:
        return None
    if project.repeats_form(event, at.instrument):
        place = at
    else:
        place = Place(at.event_id, "", at.instance if project.repeats_event(event) else 1)
    return Sheet(project, response, record, place)


@dataclass(frozen=True)
class Submission:
    """A submission: text by input name, documents by field."""

    texts: Mapping[str, str] = field(default_factory=dict)
    uploads: Mapping[str, Upload] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """A validated submission."""

    answers: Answers
    """Stored answers updated with the submission, without those of hidden fields."""
    shown: frozenset[str]
    faults: Mapping[str, str]
    """Errors by field, in order."""
    uploads: Mapping[str, Upload]
    """Documents to store."""


def read(sheet: Sheet, fields: Sequence[Field], submission: Submission) -> Reading:
    """Validate a submission of *fields*.

    Clearing a hidden answer may hide further fields, so this repeats until
    nothing changes; each round hides at least one field, so it terminates.
    """
    answers, faults = dict(sheet.answers), {}
    uploads = {f.field_name: up for f in fields if (up := submission.uploads.get(f.field_name))}
    for asked in fields:
        fault = _take(asked, submission, answers)
        if fault:
            faults[asked.field_name] = fault
    shown = settle(sheet, fields, answers)
    for asked in fields:
        name = asked.field_name
        if name not in shown:
            faults.pop(name, None)
            uploads.pop(name, None)
        elif name in uploads and len(uploads[name].content) > documents.MAX_BYTES:
            faults[name] = TOO_LARGE
        elif (
            asked.is_required
            and _can_answer(asked)
            and not (answers.get(name) or name in uploads or name in faults)
        ):
            faults[name] = MISSING
    ordered = {f.field_name: faults[f.field_name] for f in fields if f.field_name in faults}
    return Reading(answers, shown, ordered, uploads)


def settle(sheet: Sheet, fields: Iterable[Field], answers: Answers) -> frozenset[str]:
    """Clear the *answers* of hidden fields, in place; return the names of visible fields."""
    tests = {f: condition(f.branching_logic, sheet.project) for f in fields}
    shown = set(tests)
    while True:
        row = sheet.row(answers)
        hidden = {f for f in shown if not tests[f](row)}
        if not hidden:
            return frozenset(f.field_name for f in shown)
        shown -= hidden
        for gone in hidden:
            answers.pop(gone.field_name, None)


def keep(
    db: sqlite3.Connection, sheet: Sheet, reading: Reading, *, page: int = 0, complete: bool
) -> None:
    """Store a submission; *complete* completes the survey."""
    project, answers = sheet.project, dict(reading.answers)
    for name, upload in reading.uploads.items():
        number = documents.add(
            db, project.id, name=upload.name, mime=upload.mime, content=upload.content
        )
        answers[name] = {"doc": number, "name": upload.name}
    _forget_replaced(db, sheet, answers)
    answers[status_field(sheet.form)] = "2" if complete else "0"
    records.write_entry(db, project.id, sheet.record.name, sheet.place, answers)
    Calculations(project).update(db, sheet.record.name)
    responses.mark(db, sheet.response, page=page, complete=complete)


def _forget_replaced(db: sqlite3.Connection, sheet: Sheet, answers: Answers) -> None:
    for name, before in sheet.answers.items():
        if isinstance(before, dict) and answers.get(name) != before:
            documents.delete(db, sheet.project.id, int(before["doc"]))


def _can_answer(asked: Field) -> bool:
    return asked.is_data and not asked.is_calculated and "@READONLY" not in asked.field_annotation


def _take(asked: Field, submission: Submission, answers: Answers) -> str | None:
    """Add the submission's answer to one field to *answers*; return its error, if any."""
    name, texts = asked.field_name, submission.texts
    if not _can_answer(asked):
        return None
    if asked.is_file:
        if texts.get(f"__remove:{name}"):
            answers.pop(name, None)
        return None
    if asked.is_checkbox:
        ticked = [c for c in asked.options if texts.get(checkbox_column(name, c), "") in {"1", c}]
        answers[name] = ticked
        return None
    form = format_of(asked.validation)
    text = texts.get(name, "").replace("\r\n", "\n").strip()
    text = to_stored(text, form, order=form.order)
    if not text:
        answers.pop(name, None)
        return None
    answers[name] = text
    if fault_of(asked, text) or not _within(asked, text):
        return BAD_FORMAT
    return None


def _within(asked: Field, text: str) -> bool:
    """Return whether *text* is within the field's minimum and maximum, if set."""
    least, most = asked.text_validation_min, asked.text_validation_max
    if asked.field_type != "text" or not (least or most):
        return True
    try:
        value = float(text)
        return (not least or value >= float(least)) and (not most or value <= float(most))
    except ValueError:
        # Dates and times in stored form compare as text.
        return (not least or text >= least) and (not most or text <= most)
