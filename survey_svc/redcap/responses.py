"""Parses REDCap's responses; the only place that decides which are valid.

Lenient where real servers differ (numbers, booleans and null as values, a byte order mark, the same
row twice), strict everywhere else: empty bodies, HTML, truncated or deeply nested JSON, wrong types
and invalid Unicode are upstream errors, never parser exceptions.

Source:
    REDCap API 16.1.9, sections 1 and 2; RFC 8259 (no NaN or Infinity, no lone surrogates; section
    8.1: a parser may ignore a byte order mark).
"""

import json
from collections.abc import Collection
from typing import Any, NoReturn

from mesh.chassis.errors import UpstreamError
from survey_svc.errors import InvalidRowError, OperationFailedError
from survey_svc.requests.rules import Row


class EmptyResponseError(UpstreamError):
    """REDCap returned status 200 without a body; a retry may succeed."""

    def __init__(self) -> None:
        super().__init__("REDCap returned an empty response.")


class IncompleteExportError(OperationFailedError):
    """An export lacks existing records, or contradicts itself; a retry may succeed."""

    def __init__(self, message: str = "REDCap omitted records from an export.") -> None:
        super().__init__(message)


class UnreadableResponseError(UpstreamError):
    """REDCap returned an error page or part of a response; a retry may succeed."""


TRANSIENT = EmptyResponseError, IncompleteExportError, UnreadableResponseError
"""Errors after which a retry may succeed."""


def text(body: bytes) -> str:
    """Return the text of a response."""
    if not body.strip():
        raise EmptyResponseError
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise OperationFailedError("REDCap returned a response that is not UTF-8 text.") from exc


def parse_json(body: bytes) -> Any:
    """Return the JSON value of a response; numbers remain text, as REDCap wrote them."""
    try:
        value = json.loads(
            text(body), parse_int=str, parse_float=str, parse_constant=_reject_constant
        )
    except RecursionError as exc:
        raise OperationFailedError("REDCap returned JSON that is nested too deeply.") from exc
    except ValueError as exc:
        raise UnreadableResponseError("REDCap returned a response that is not valid JSON.") from exc
    if isinstance(value, dict) and "error" in value:
        raise OperationFailedError("REDCap reported an error with status 200.")
    return value


def is_error(body: bytes) -> bool:
    """Return whether *body* is REDCap's own error object."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "error" in value


def rows(value: Any, *needed: str) -> list[Row]:
    """Return a list of flat objects with text values, each with the columns *needed*."""
    if not isinstance(value, list):
        raise OperationFailedError("REDCap returned something other than a list.")
    return [_row(item, needed) for item in value]


def every_record(found: list[Row], column: str, asked: Collection[str]) -> list[Row]:
    """Return *found* if it contains every record in *asked*.

    Raises:
        IncompleteExportError: A record is missing.
    """
    if set(asked) - {row[column] for row in found}:
        raise IncompleteExportError
    return found


def distinct(found: list[Row], column: str) -> list[Row]:
    """Return *found* with each record once.

    Raises:
        IncompleteExportError: A record occurs twice with different values.
    """
    records: dict[str, Row] = {}
    for row in found:
        if records.setdefault(row[column], row) != row:
            raise IncompleteExportError("REDCap returned two versions of a record.")
    return list(records.values())


def is_one_stored(value: Any) -> bool:
    """Return whether an import reports exactly one stored record."""
    return isinstance(value, dict) and value.get("count") == "1"


def _row(item: Any, needed: Collection[str]) -> Row:
    if not isinstance(item, dict) or any(name not in item for name in needed):
        raise InvalidRowError("REDCap returned a row without the requested columns.")
    return {_unicode(name): _cell(value) for name, value in item.items()}


def _cell(value: Any) -> str:
    match value:
        case str():
            return _unicode(value)
        case None:
            return ""
        case bool():
            return "1" if value else "0"
        case _:
            raise InvalidRowError("REDCap returned a row with a value that is not text.")


def _unicode(value: str) -> str:
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise InvalidRowError("REDCap returned text with unpaired surrogates.") from exc
    return value


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
