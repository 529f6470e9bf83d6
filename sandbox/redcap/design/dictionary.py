"""The data dictionary: fields with their choices and forms.

A field keeps REDCap's 18 attributes as text, under REDCap's names,
so that metadata is exported exactly as imported.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property

from sandbox.redcap.errors import ApiError

STATUS_OPTIONS = {"0": "Incomplete", "1": "Unverified", "2": "Complete"}
"""Choices of every ``<form>_complete`` field."""

FIELD_TYPES = frozenset(
    [
        "text",
        "notes",
        "calc",
        "dropdown",
        "radio",
        "checkbox",
        "yesno",
        "truefalse",
        "file",
        "descriptive",
        "slider",
        "sql",
    ]
)
_OLD_TYPES = {"textarea": "notes", "select": "dropdown"}
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Field:
    """One field of the dictionary."""

    field_name: str
    form_name: str
    section_header: str = ""
    field_type: str = "text"
    field_label: str = ""
    select_choices_or_calculations: str = ""
    field_note: str = ""
    text_validation_type_or_show_slider_number: str = ""
    text_validation_min: str = ""
    text_validation_max: str = ""
    identifier: str = ""
    branching_logic: str = ""
    required_field: str = ""
    custom_alignment: str = ""
    question_number: str = ""
    matrix_group_name: str = ""
    matrix_ranking: str = ""
    field_annotation: str = ""

    @property
    def validation(self) -> str:
        """The validation type of its text, such as ``date_dmy``; empty for free text."""
        return self.text_validation_type_or_show_slider_number

    @property
    def is_required(self) -> bool:
        """Whether a survey requires an answer while the field is visible."""
        return self.required_field.lower() == "y"

    @property
    def is_checkbox(self) -> bool:
        """Whether the answer is a set of codes, each with its own column."""
        return self.field_type == "checkbox"

    @property
    def is_file(self) -> bool:
        """Whether the answer is a file."""
        return self.field_type == "file"

    @property
    def is_signature(self) -> bool:
        """Whether the file is a drawn signature."""
        return self.is_file and self.validation == "signature"

    @property
    def is_calculated(self) -> bool:
        """Whether the answer is computed."""
        return self.field_type == "calc"

    @property
    def is_data(self) -> bool:
        """Whether it can have an answer; descriptive text cannot."""
        return self.field_type != "descriptive"

    @cached_property
    def options(self) -> Mapping[str, str]:
        """Choice labels by code, in order; empty if the field has no choices."""
        if self.field_type == "yesno":
            return {"1": "Yes", "0": "No"}
        if self.field_type == "truefalse":
            return {"1": "True", "0": "False"}
        if self.field_type in {"dropdown", "radio", "checkbox"}:
            return parse_choices(self.select_choices_or_calculations)
        return {}

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of its columns in a flat export; a checkbox has one per choice."""
        if not self.is_checkbox:
            return (self.field_name,) if self.is_data else ()
        return tuple(checkbox_column(self.field_name, code) for code in self.options)


KEYS = tuple(field.name for field in fields(Field))
"""The 18 attributes in REDCap's order."""

CSV_HEADERS = (
    "Variable / Field Name",
    "Form Name",
    "Section Header",
    "Field Type",
    "Field Label",
    "Choices, Calculations, OR Slider Labels",
    "Field Note",
    "Text Validation Type OR Show Slider Number",
    "Text Validation Min",
    "Text Validation Max",
    "Identifier?",
    "Branching Logic (Show field only if...)",
    "Required Field?",
    "Custom Alignment",
    "Question Number (surveys only)",
    "Matrix Group Name",
    "Matrix Ranking?",
    "Field Annotation",
)
"""Headers of a dictionary file exported by REDCap's designer."""

_KEY_OF_HEADER = dict(zip(CSV_HEADERS, KEYS, strict=True)) | {key: key for key in KEYS}


def parse_choices(text: str) -> dict[str, str]:
    """Parse ``code, label | code, label``; a label may contain commas.

    Line breaks separate choices too.
    """
    options: dict[str, str] = {}
    for part in re.split(r"\||\n|\\n", text):
        code, _, label = part.partition(",")
        if code.strip():
            options[code.strip()] = label.strip()
    return options


def checkbox_column(name: str, code: str) -> str:
    """Return the export column of one choice: ``field___code``, lower case, ``-`` as ``_``."""
    return f"{name}___{code.lower().replace('-', '_')}"


def status_field(form: str) -> str:
    """Return the name of a form's status field."""
    return f"{form}_complete"


class Dictionary:
    """The fields of a project in order; the first is the record id.

    Raises:
        ApiError: There is no field, a name is malformed or repeated, a type is
            unknown, or a form is not contiguous.
    """

    def __init__(self, rows: Iterable[Field]) -> None:
        self.fields = tuple(rows)
        self.by_name = {field.field_name: field for field in self.fields}
        self._check()
        self.forms: dict[str, tuple[Field, ...]] = {}
        for field in self.fields:
            self.forms[field.form_name] = (*self.forms.get(field.form_name, ()), field)
        self.form_of_status = {status_field(form): form for form in self.forms}

    @property
    def record_id(self) -> str:
        """Name of the record id field."""
        return self.fields[0].field_name

    @cached_property
    def columns(self) -> dict[str, tuple[Field, str | None]]:
        """Importable columns except form status: their field, and their code in a checkbox."""
        found: dict[str, tuple[Field, str | None]] = {}
        for field in self.fields:
            if field.is_checkbox:
                for column, code in zip(field.columns, field.options, strict=True):
                    found[column] = (field, code)
            elif field.is_data:
                found[field.field_name] = (field, None)
        return found

    def form_of(self, name: str) -> str | None:
        """Return the form of *name*, a field or a form status field."""
        if name in self.by_name:
            return self.by_name[name].form_name
        return self.form_of_status.get(name)

    def rows(self) -> list[dict[str, str]]:
        """The fields as dictionaries of the 18 attributes."""
        return [asdict(field) for field in self.fields]

    def _check(self) -> None:
        if not self.fields:
            raise ApiError("The data dictionary has no fields.")
        if len(self.by_name) != len(self.fields):
            names = [field.field_name for field in self.fields]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ApiError(f"These field names appear more than once: {', '.join(twice)}")
        for field in self.fields:
            for name in (field.field_name, field.form_name):
                if not _NAME.fullmatch(name):
                    raise ApiError(
                        f"The name '{name}' is not valid: lower-case letters, digits and "
                        "underscores only, starting with a letter."
                    )
            if field.field_type not in FIELD_TYPES:
                raise ApiError(
                    f"The field '{field.field_name}' has the unknown type '{field.field_type}'."
                )
        if not self.fields[0].is_data:
            raise ApiError("The first field is the record id and must be a text field.")


def from_rows(rows: Iterable[Mapping[str, str]]) -> Dictionary:
    """Build a dictionary from rows with either set of headers.

    Raises:
        ApiError: A row has no field or form name, or the dictionary is invalid.
    """
    return Dictionary(_field(row) for row in rows)


def _field(row: Mapping[str, str]) -> Field:
    known = {
        _KEY_OF_HEADER[header]: (value or "").strip()
        for header, value in row.items()
        if header in _KEY_OF_HEADER
    }
    if not known.get("field_name") or not known.get("form_name"):
        raise ApiError("Every row of a data dictionary requires a field name and a form name.")
    kind = known.get("field_type") or "text"
    known["field_type"] = _OLD_TYPES.get(kind, kind)
    return Field(**known)
