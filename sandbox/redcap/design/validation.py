"""Validation types of text answers.

Dates are stored year first, whatever the field's display order.
"""

import re
from dataclasses import dataclass
from datetime import date

from sandbox.redcap.design.dictionary import STATUS_OPTIONS, Field

BAD_FORMAT = (
    "The value you provided could not be validated because it does not follow the expected "
    "format. Please try again."
)
BAD_CHOICE = "The value is not a valid category for {field}"

_TIME = r"([01]\d|2[0-3]):[0-5]\d"
PATTERNS = {
    "integer": r"[-+]?\d+",
    "number": r"[-+]?(\d+(\.\d*)?|\.\d+)",
    "number_comma_decimal": r"[-+]?(\d+(,\d*)?|,\d+)",
    **{f"number_{n}dp": rf"[-+]?\d*\.\d{{{n}}}" for n in range(1, 5)},
    "email": r"[^\s@<>\",;]+@[^\s@<>\"',;]+\.[^\s@<>\"',;.]+",
    "phone": r"\+?[\d() .x-]{6,24}",
    "zipcode": r"\d{5}(-\d{4})?",
    "postalcode_french": r"\d{5}",
    "ssn": r"\d{3}-\d{2}-\d{4}",
    "alpha_only": r"[A-Za-z]+",
    "time": _TIME,
    "time_mm_ss": r"[0-5]\d:[0-5]\d",
    "time_hh_mm_ss": rf"{_TIME}:[0-5]\d",
    "date": r"\d{4}-\d{2}-\d{2}",
    "datetime": rf"\d{{4}}-\d{{2}}-\d{{2}} {_TIME}",
    "datetime_seconds": rf"\d{{4}}-\d{{2}}-\d{{2}} {_TIME}:[0-5]\d",
}
"""Regular expressions by validation type; date types without their display order."""

_COMPILED = {name: re.compile(pattern, re.ASCII) for name, pattern in PATTERNS.items()}
_ORDER = re.compile(r"_(ymd|mdy|dmy)$")
_DAY = re.compile(r"(\d{1,4})[-/.](\d{1,2})[-/.](\d{1,4})(?:[ T](.*))?", re.ASCII)


@dataclass(frozen=True)
class Format:
    """A validation type, split into base type and display order."""

    kind: str
    order: str = ""

    @property
    def is_date(self) -> bool:
        """Whether this is a date, with or without time."""
        return self.kind in {"date", "datetime", "datetime_seconds"}


def format_of(validation: str) -> Format:
    """Parse a validation type such as ``date_dmy`` or ``int``."""
    kind = {"int": "integer", "float": "number"}.get(validation, validation)
    match = _ORDER.search(kind)
    return Format(kind[: match.start()], match.group(1)) if match else Format(kind)


def to_stored(text: str, form: Format, *, order: str) -> str:
    """Return *text* in stored form: ``31/12/2026`` becomes ``2026-12-31``.

    Text that starts with a year, or is not a date, is returned unchanged;
    :func:`is_valid` rejects the latter.
    """
    match = _DAY.fullmatch(text.strip()) if form.is_date else None
    if match is None:
        return text
    first, middle, last, time = match.groups()
    if len(first) == 4:
        year, month, day = first, middle, last
    elif order == "mdy":
        month, day, year = first, middle, last
    elif order == "dmy":
        day, month, year = first, middle, last
    else:
        return text
    return f"{year}-{month:0>2}-{day:0>2}" + (f" {time}" if time else "")


def is_valid(text: str, form: Format) -> bool:
    """Return whether *text*, in stored form, matches; unknown formats accept anything."""
    pattern = _COMPILED.get(form.kind)
    if pattern is None:
        return True
    if not pattern.fullmatch(text):
        return False
    return not form.is_date or _is_day(text[:10])


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def fault_of(field: Field, text: str) -> str | None:
    """Return why *text*, in stored form, is not a valid answer to *field*; None if it is."""
    if field.options and not field.is_checkbox:
        return None if text in field.options else BAD_CHOICE.format(field=field.field_name)
    if field.field_type == "slider":
        return None if is_valid(text, Format("integer")) else BAD_FORMAT
    if field.field_type == "text" and not is_valid(text, format_of(field.validation)):
        return BAD_FORMAT
    return None


def status_fault(name: str, text: str) -> str | None:
    """Return why *text* is not a valid form status; None if it is."""
    return None if text in STATUS_OPTIONS else BAD_CHOICE.format(field=name)
