"""Binds JSON bodies, queries and headers to request messages, as the contract defines."""

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gateway.errors import UnreadableInputError, UnsupportedEncodingError
from gateway.rest.strict_json import NotJsonError, parse
from mesh.chassis.errors import InvalidRequestError, Violation
from mesh.chassis.interceptors.validation import invalid_request
from mesh.contract.json_schema import header_of, is_required, rules
from mesh.contract.policy import Method

CLIENT_ADDRESS = "x-amarre-client-address"
"""Set only by the gateway; a value sent by the client is ignored."""
_SHORTENED = frozenset({CLIENT_ADDRESS, "user-agent"})
"""Headers that describe the client: values that are too long are truncated, not rejected."""
_MOST_PARAMETERS = 64
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_NUMBER_KINDS = frozenset({FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE})
_INTEGER_KINDS = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)


@dataclass(frozen=True)
class Shape:
    """The fields of a request message and where each comes from."""

    descriptor: Descriptor
    fields: Mapping[str, FieldDescriptor]
    """Fields of bodies and queries, by JSON name and by proto name."""
    required: tuple[FieldDescriptor, ...]
    headers: Mapping[str, FieldDescriptor]
    """Fields taken from request headers, by lower-case header name."""

    def new(self) -> Message:
        """Return an empty message."""
        return message_factory.GetMessageClass(self.descriptor)()


@functools.cache
def shape(descriptor: Descriptor) -> Shape:
    """Return the shape of request messages of type *descriptor*."""
    headers = {name.lower(): f for f in descriptor.fields if (name := header_of(f))}
    plain = [f for f in descriptor.fields if not header_of(f)]
    return Shape(
        descriptor=descriptor,
        fields={name: f for f in plain for name in (f.name, f.json_name)},
        required=tuple(f for f in plain if is_required(f)),
        headers=headers,
    )


def from_body(method: Method, body: bytes, content_types: list[str]) -> Message:
    """Read a JSON body.

    Raises:
        InvalidRequestError: The body does not match the contract; the reason says why.
    """
    wanted = shape(method.descriptor.input_type)
    if not body and not content_types and not wanted.required:
        return wanted.new()
    if not _is_json(content_types):
        raise UnreadableInputError(
            "Send the body as Content-Type: application/json.",
            area=method.service,
            as_reason=method.rest.wrong_content_type or "INVALID_CONTENT_TYPE",
        )
    try:
        value = parse(body)
    except NotJsonError as exc:
        raise UnreadableInputError(
            "The body is not valid JSON.",
            area=method.service,
            as_reason="INVALID_JSON",
            cause=str(exc),
        ) from exc
    message = wanted.new()
    for field, part in _parts(method, wanted, value):
        _set_json(message, field, part)
    return message


def require_identity(content_encodings: list[str]) -> None:
    """
    Check that a request body is not compressed.

    Raises:
        UnsupportedEncodingError: It has a content coding.

    Source:
        RFC 9110, sections 8.4 and 15.5.16.
    """
    codings = {coding.strip().lower() for value in content_encodings for coding in value.split(",")}
    if codings - {"", "identity"}:
        raise UnsupportedEncodingError


def from_query(method: Method, query: bytes) -> Message:
    """Read query parameters, each at most once.

    Raises:
        InvalidRequestError: A parameter is unknown, given twice, or not of its type.
    """
    wanted = shape(method.descriptor.input_type)
    message = wanted.new()
    seen: set[str] = set()
    for name, text in _pairs(query):
        field = wanted.fields.get(name)
        if field is None:
            raise UnreadableInputError(f"The parameter {name[:64]!a} is unknown.")
        if field.name in seen:
            raise UnreadableInputError(f"The parameter {field.json_name!r} occurs more than once.")
        seen.add(field.name)
        _set_text(message, field, text)
    return message


def reject_query(query: bytes) -> None:
    """Raise InvalidRequestError for any query parameter on a route with a body."""
    for name, _ in _pairs(query):
        raise UnreadableInputError(f"The parameter {name[:64]!a} is unknown.")


def fill_headers(message: Message, headers: Mapping[str, list[str]]) -> None:
    """Set the fields that the contract binds to request headers.

    Raises:
        InvalidRequestError: Such a header occurs more than once.
    """
    for name, field in shape(message.DESCRIPTOR).headers.items():
        values = headers.get(name, [])
        if len(values) > 1:
            raise UnreadableInputError(f"The header {header_of(field)} occurs more than once.")
        for value in values:
            longest = rules(field).string.max_len
            cut = value[:longest] if longest and name in _SHORTENED else value
            setattr(message, field.name, cut)


def _is_json(content_types: list[str]) -> bool:
    if len(content_types) != 1:
        return False
    kind, *parameters = (part.strip() for part in content_types[0].lower().split(";"))
    named = (part.partition("=") for part in parameters)
    # Other parameters have no meaning for JSON (RFC 8259, section 11); another charset would lie.
    charsets = {value.strip('"') for name, _, value in named if name == "charset"}
    return kind == "application/json" and charsets <= {"utf-8"}


def _parts(method: Method, wanted: Shape, value: Any) -> Iterator[tuple[FieldDescriptor, Any]]:
    """Yield each field of a JSON object with its value, after checking all names."""

    def invalid(message: str) -> InvalidRequestError:
        return UnreadableInputError(
            message,
            area=method.service,
            as_reason=method.rest.invalid_body or "REQUEST_BODY_VALIDATION_ERROR",
        )

    if not isinstance(value, dict):
        raise invalid("The body must be a JSON object.")
    fields = {}
    for name, part in value.items():
        field = wanted.fields.get(name)
        if field is None:
            raise invalid(f"The field {name[:64]!a} is unknown.")
        if field in fields:
            raise invalid(f"The field {field.json_name!r} is given under two names.")
        fields[field] = part
    missing = [field.json_name for field in wanted.required if field not in fields]
    if missing:
        raise invalid(f"The body is missing {', '.join(missing)}.")
    # ProtoJSON: null leaves a field at its default, which its rules then judge.
    yield from ((field, part) for field, part in fields.items() if part is not None)


def _set_json(message: Message, field: FieldDescriptor, value: Any) -> None:
    try:
        if not _is_of_kind(field, value):
            raise TypeError
        json_format.ParseDict({field.json_name: value}, message)
    except (json_format.ParseError, ValueError, TypeError, OverflowError) as exc:
        raise _ill_typed(message, field) from exc


def _is_of_kind(field: FieldDescriptor, value: Any) -> bool:
    """Return whether *value* has the JSON type of *field*: ParseDict accepts "1" and 1.0 for 1."""
    if field.is_repeated or field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        return True  # ParseDict checks these strictly.
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return isinstance(value, bool)
    if field.cpp_type in _INTEGER_KINDS:
        return type(value) is int
    if field.cpp_type in _NUMBER_KINDS:
        return type(value) in {int, float}
    return isinstance(value, str)


def _set_text(message: Message, field: FieldDescriptor, text: str) -> None:
    try:
        setattr(message, field.name, _from_text(field, text))
    except (ValueError, TypeError, KeyError) as exc:
        raise _ill_typed(message, field) from exc


def _from_text(field: FieldDescriptor, text: str) -> Any:
    if field.is_repeated or field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        raise TypeError("not a scalar")
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return text
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"true": True, "false": False}.get(text)
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return _numbers(field)[text]
    if field.cpp_type in _INTEGER_KINDS and _INTEGER.fullmatch(text):
        return int(text)
    raise ValueError("not of its type")


def _numbers(field: FieldDescriptor) -> dict[str, int]:
    values = field.enum_type.values if field.enum_type else ()
    return {value.name: value.number for value in values}


def _ill_typed(message: Message, field: FieldDescriptor) -> InvalidRequestError:
    kind = {
        FieldDescriptor.CPPTYPE_STRING: "a string",
        FieldDescriptor.CPPTYPE_BOOL: "true or false",
        FieldDescriptor.CPPTYPE_ENUM: "one of the enum names in the contract",
    }.get(field.cpp_type, "an integer in range")
    return invalid_request(message.DESCRIPTOR, [Violation(field.name, f"must be {kind}", "type")])


def _pairs(query: bytes) -> list[tuple[str, str]]:
    if not query:
        return []
    try:
        return parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_PARAMETERS,
        )
    except ValueError as exc:
        raise UnreadableInputError("The query is not UTF-8 or has too many parameters.") from exc
