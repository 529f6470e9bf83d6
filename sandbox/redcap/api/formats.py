"""Encoding and decoding of rows as JSON, CSV and XML."""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from sandbox.redcap.api.params import Format
from sandbox.redcap.errors import ApiError

XML_HEAD = '<?xml version="1.0" encoding="UTF-8" ?>'
MEDIA_TYPES = {
    "json": "application/json; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "xml": "text/xml; charset=utf-8",
    "odm": "text/xml; charset=utf-8",
    "text": "text/html; charset=UTF-8",
}

Row = Mapping[str, Any]

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CSV_LIMIT = 10_000_000
_MOST = 2**63
"""The first integer beyond 64 bits."""
csv.field_size_limit(_CSV_LIMIT)


def dump_json(value: object) -> str:
    """Return compact JSON without escaping non-ASCII characters."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def csv_line(values: Iterable[object], delimiter: str = ",") -> str:
    """Return one CSV line with its line ending.

    A value is quoted when it holds the delimiter, a quote, a line break, a tab
    or a space; quotes inside are doubled.
    """
    return delimiter.join([_csv_value(str(value), delimiter) for value in values]) + "\n"


def _csv_value(text: str, delimiter: str) -> str:
    if delimiter in text or any(char in text for char in ' "\n\r\t'):
        return '"' + text.replace('"', '""') + '"'
    return text


def cdata(value: object) -> str:
    """Return *value* as character data, without the characters that XML forbids."""
    text = _NOT_XML.sub("", str(value)).replace("]]>", "]]]]><![CDATA[>")
    return f"<![CDATA[{text}]]>"


def write_rows(
    rows: Iterable[Row],
    shape: Format,
    *,
    columns: Sequence[str],
    headers: Sequence[str] | None = None,
    root: str = "records",
    delimiter: str = ",",
) -> Iterator[str]:
    """Yield *rows* in chunks in the given format.

    Args:
        rows: Mappings by column name.
        shape: ``json``, ``csv`` or ``xml``.
        columns: Names and order of the columns.
        headers: CSV headers, where they differ from the names.
        root: Name of the XML root element.
        delimiter: Separator of CSV values.
    """
    match shape:
        case "json":
            yield "["
            for position, row in enumerate(rows):
                yield ("," if position else "") + dump_json(row)
            yield "]"
        case "csv":
            yield csv_line(headers or columns, delimiter)
            for row in rows:
                yield csv_line([row[column] for column in columns], delimiter)
        case _:
            yield f"{XML_HEAD}<{root}>"
            for row in rows:
                yield "<item>"
                yield "".join(f"<{k}>{_xml_value(row[k])}</{k}>" for k in columns if k in row)
                yield "</item>"
            yield f"</{root}>"


def _xml_value(value: object) -> str:
    if isinstance(value, Mapping):
        return "".join(f"<{key}>{_xml_value(inner)}</{key}>" for key, inner in value.items())
    return "" if value == "" else cdata(value)


def read_rows(text: str, shape: Format, *, delimiter: str = ",") -> list[dict[str, str]]:
    """Parse rows sent by a client; values become text, null becomes a blank.

    Raises:
        ApiError: The text is not in that format.
    """
    match shape:
        case "json":
            return _read_json(text)
        case "csv":
            return _read_csv(text, delimiter)
        case _:
            return _read_xml(text)


def _read_json(text: str) -> list[dict[str, str]]:
    try:
        data = json.loads(text, parse_int=_integer, parse_constant=_reject_constant)
        # PHP's json_decode takes no lone surrogate, which JSON can escape (JSON_ERROR_UTF16).
        dump_json(data).encode()
    except (ValueError, RecursionError) as exc:
        raise ApiError("The data being imported is not formatted correctly as JSON.") from exc
    if not isinstance(data, list):
        # A real REDCap reports success for a single object but imports nothing.
        return []
    if not all(isinstance(row, dict) for row in data):
        raise ApiError("The JSON data must be an array of objects.")
    return [{key: _plain(value) for key, value in row.items()} for row in data]


def _integer(literal: str) -> int | float:
    """Parse an integer as PHP does: beyond 64 bits it is a float."""
    number = int(literal) if len(literal) <= 20 else _MOST
    return number if -_MOST <= number < _MOST else float(literal)


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid JSON")


def php_text(number: float) -> str:
    """Return *number* as PHP casts a float to a string: 14 digits, ``1.0`` as ``1``.

    Source:
        PHP manual, Strings, "Converting to string", and the ini setting ``precision``.
    """
    if math.isinf(number):
        return "INF" if number > 0 else "-INF"
    text = f"{number:.14G}"
    if "E" not in text:
        return text
    digits, exponent = text.split("E")
    return f"{digits}{'' if '.' in digits else '.0'}E{int(exponent):+d}"


def _plain(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "1" if value else "0"
        case str():
            return value
        case dict() | list():
            return dump_json(value)
        case float():
            return php_text(value)
        case _:
            return str(value)


def _read_csv(text: str, delimiter: str) -> list[dict[str, str]]:
    source = io.StringIO(text.removeprefix("\ufeff"), newline="")
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    try:
        headers = [name.strip() for name in next(reader, [])]
        rows = [row for row in reader if row]
    except csv.Error as exc:
        raise ApiError(f"The data being imported is not formatted correctly as CSV: {exc}") from exc
    for number, row in enumerate(rows, start=2):
        if len(row) != len(headers):
            raise ApiError(
                f"The csv row {number} holds {len(row)} values where the header has {len(headers)}."
            )
    return [dict(zip(headers, row, strict=True)) for row in rows]


def parse_xml(text: str) -> Element:
    """Parse XML without entities or external references.

    Raises:
        ApiError: It is not well-formed, or declares entities.
    """
    try:
        root: Element = fromstring(text.strip())
    except (ParseError, DefusedXmlException, ValueError) as exc:
        raise ApiError(f"The XML data could not be read: {exc}") from exc
    return root


def _read_xml(text: str) -> list[dict[str, str]]:
    root = parse_xml(text)
    items = [root] if root.tag == "item" else root.findall("item")
    return [{child.tag: _inner(child) for child in item} for item in items]


def _inner(element: Element) -> str:
    if len(element):
        return dump_json({child.tag: child.text or "" for child in element})
    return element.text or ""


def error_body(message: str, shape: Format) -> str:
    """Return the error envelope."""
    match shape:
        case "json":
            return dump_json({"error": message})
        case "csv":
            return f"ERROR: {message}"
        case _:
            return f"{XML_HEAD}<hash><error>{escape(message)}</error></hash>"


def escape(text: str) -> str:
    """Escape *text* for use between XML tags."""
    text = _NOT_XML.sub("", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
