"""Instruments as PDF, blank or with a record's answers."""

from collections.abc import Sequence

from fpdf import FPDF

from sandbox.redcap.design.dictionary import STATUS_OPTIONS, Field, status_field
from sandbox.redcap.design.project import Event, Project
from sandbox.redcap.filter_logic.evaluate import Row, condition
from sandbox.redcap.records.exporting import forms_of
from sandbox.redcap.records.storage import Answer, Answers, Place, Record
from sandbox.redcap.surveys.piping import Piping

_LINE_MM = 5


def render(
    project: Project,
    forms: Sequence[str],
    records: Sequence[Record],
    *,
    event: Event | None = None,
    instance: int = 0,
    compact: bool = False,
) -> bytes:
    """Draw *forms* of *records*; each form of each record starts a new page.

    Args:
        project: The project.
        forms: Names of the instruments, in order.
        records: Records whose answers to draw; blank forms if empty.
        event: Only this event of a longitudinal project.
        instance: Only this instance of repeating forms and events; 0 means all.
        compact: Leave out unanswered fields.
    """
    sheet = _Sheet(project)
    for record in records or [Record("")]:
        for form in forms:
            for place in _places(project, record, form, event=event, instance=instance):
                sheet.form(record, form, place, compact=compact)
    if not sheet.pages_count:
        sheet.add_page()
    return bytes(sheet.output())


def _places(
    project: Project, record: Record, form: str, *, event: Event | None, instance: int
) -> list[Place]:
    if not record.entries:
        return [Place(project.default_event().event_id)]
    return sorted(
        place
        for place in record.entries
        if place.event_id in project.event_by_id
        and form in forms_of(project, place)
        and (event is None or place.event_id == event.event_id)
        and (instance in {0, place.instance})
    )


class _Sheet(FPDF):
    """A PDF document under construction."""

    def __init__(self, project: Project) -> None:
        super().__init__()
        # The built-in fonts use this code page: it covers French; other scripts become '?'.
        self.core_fonts_encoding = "windows-1252"
        self._project = project
        self.set_title(_drawable(project.title))
        self.set_auto_page_break(True, margin=18)

    def form(self, record: Record, form: str, place: Place, *, compact: bool) -> None:
        """Draw one form of one record."""
        answers, row = record.answers(place), Row(record, place)
        piping = Piping(self._project, row)
        self.add_page()
        self._write(self._project.title, size=9)
        heading = f"{self._project.label(form)}" + (f" - {record.name}" if record.name else "")
        self._write(heading, size=15, bold=True)
        for field in self._project.dictionary.forms[form]:
            shown = not record.name or condition(field.branching_logic, self._project)(row)
            answered = field.field_name in answers or not field.is_data
            if shown and (answered or not compact):
                self._field(field, answers, piping, record=record)
        status = STATUS_OPTIONS.get(str(answers.get(status_field(form)) or "0"), "")
        self._write(f"Form status: {status if record.name else ''}", size=9)

    def _field(self, field: Field, answers: Answers, piping: Piping, *, record: Record) -> None:
        if field.section_header:
            self.ln(2)
            self._write(piping.text(field.section_header), size=12, bold=True)
        self._write(piping.text(field.field_label), size=10)
        if field.is_data:
            is_name = field.field_name == self._project.dictionary.record_id
            answer = record.name if is_name else answers.get(field.field_name, "")
            self._write(f"    {_said(field, answer) or '________'}", size=10, bold=bool(answer))

    def _write(self, text: str, *, size: int, bold: bool = False) -> None:
        self.set_font("helvetica", style="B" if bold else "", size=size)
        self.multi_cell(0, _LINE_MM, _drawable(text), new_x="LMARGIN", new_y="NEXT")


def _said(field: Field, answer: Answer) -> str:
    match answer:
        case dict():
            return str(answer["name"])
        case list():
            return ", ".join(field.options.get(code, code) for code in answer)
        case _:
            return field.options.get(answer, answer)


def _drawable(text: str) -> str:
    return text.encode("windows-1252", "replace").decode("windows-1252")
