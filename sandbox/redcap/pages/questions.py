"""View model of a survey's fields for the template."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from sandbox.redcap.design.dictionary import Field, checkbox_column
from sandbox.redcap.design.validation import format_of
from sandbox.redcap.filter_logic.browser import browser_logic
from sandbox.redcap.records.storage import Answer
from sandbox.redcap.surveys.answering import Reading, Sheet
from sandbox.redcap.surveys.piping import Piping


@dataclass(frozen=True)
class Choice:
    """One choice of a field."""

    code: str
    label: Markup
    input_name: str
    chosen: bool


@dataclass(frozen=True)
class Question:
    """View model of one field."""

    name: str
    kind: str
    """``text notes dropdown radio checkbox file signature slider calc descriptive``."""
    label: Markup
    section: Markup
    note: Markup
    value: str
    choices: tuple[Choice, ...]
    input_type: str
    required: bool
    shown: bool
    fault: str
    stored_file: str
    logic: str
    """Branching logic as JSON for the browser; empty if it never changes there."""
    least: str
    most: str


_INPUT_TYPES = {
    "date": "date",
    "datetime": "datetime-local",
    "datetime_seconds": "datetime-local",
    "time": "time",
    "email": "email",
    "phone": "tel",
}


def questions(
    sheet: Sheet,
    fields: Iterable[Field],
    reading: Reading,
    *,
    piping: Piping,
    page_texts: Mapping[str, str],
) -> list[Question]:
    """Return *fields* with the answers of *reading*."""
    fields = list(fields)
    on_page = {f.field_name for f in fields}
    row = sheet.row(reading.answers)
    return [
        _question(asked, reading, piping=piping, page_texts=page_texts,
                  logic=browser_logic(asked.branching_logic, sheet.project, on_page, row))
        for asked in fields
    ]  # fmt: skip


def _question(
    asked: Field, reading: Reading, *, piping: Piping, page_texts: Mapping[str, str], logic: str
) -> Question:
    name = asked.field_name
    answer = reading.answers.get(name, "")
    form = format_of(asked.validation)
    return Question(
        name=name,
        kind=_kind(asked),
        label=piping.html(asked.field_label),
        section=piping.html(asked.section_header),
        note=piping.html(asked.field_note),
        value=_typed(str(answer), form.kind) if isinstance(answer, str) else "",
        choices=_choices(asked, answer, piping, page_texts),
        input_type=_INPUT_TYPES.get(form.kind, "text"),
        required=asked.is_required and asked.is_data,
        shown=name in reading.shown,
        fault=page_texts[reading.faults[name]] if name in reading.faults else "",
        stored_file=str(answer["name"]) if isinstance(answer, dict) else "",
        logic=logic,
        least=asked.text_validation_min,
        most=asked.text_validation_max,
    )


def _kind(asked: Field) -> str:
    if asked.is_signature:
        return "signature"
    kinds = {"yesno": "radio", "truefalse": "radio", "sql": "text"}
    return kinds.get(asked.field_type, asked.field_type)


def _typed(answer: str, kind: str) -> str:
    # Browsers separate date and time with a T.
    return answer.replace(" ", "T") if kind.startswith("datetime") else answer


def _choices(
    asked: Field, answer: Answer, piping: Piping, page_texts: Mapping[str, str]
) -> tuple[Choice, ...]:
    translated = {"Yes": "yes", "No": "no", "True": "true", "False": "false"}
    fixed = asked.field_type in {"yesno", "truefalse"}
    return tuple(
        Choice(
            code,
            piping.html(page_texts[translated[label]] if fixed else label),
            checkbox_column(asked.field_name, code) if asked.is_checkbox else asked.field_name,
            code in answer if isinstance(answer, list) else code == answer,
        )
        for code, label in asked.options.items()
    )
