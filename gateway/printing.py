"""Protobuf to JSON: lowerCamelCase, defaults printed, RFC 3339 times, secrets left out."""

import functools
from typing import Any, cast

from amarre.mesh.v1 import policy_pb2 as pb
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from mesh.contract import sensitivity


def to_json(message: Message) -> dict[str, Any]:
    """Return *message* as JSON values."""
    printed: dict[str, Any] = json_format.MessageToDict(
        message, always_print_fields_with_no_presence=True
    )
    _drop_secrets(printed, cast(Descriptor, message.DESCRIPTOR))
    return printed


def field_to_json(message: Message, name: str) -> Any:
    """Return the field *name* of *message* as JSON values; the whole message for no name."""
    if not name:
        return to_json(message)
    # Printing the whole and picking one field handles lists, maps and scalars alike.
    return to_json(message).get(message.DESCRIPTOR.fields_by_name[name].json_name)


def answer_status(message: Message, path: str) -> int:
    """Return the HTTP status that the enum at *path* (``status.status``) asks for, or 200."""
    value: Any = message
    field: FieldDescriptor | None = None
    for name in filter(None, path.split(".")):
        field = value.DESCRIPTOR.fields_by_name[name]
        value = getattr(value, name)
    if field is None or field.enum_type is None:
        return 200
    known = field.enum_type.values_by_number.get(value)
    return (known.GetOptions().Extensions[pb.answer_status] if known else 0) or 200


@functools.cache
def _secrets(descriptor: Descriptor) -> tuple[frozenset[str], tuple[tuple[str, Descriptor], ...]]:
    """Return the JSON names of secret fields, and of messages that may hold some, with types."""
    fields = descriptor.fields
    hidden = frozenset(f.json_name for f in fields if sensitivity.of(f) >= pb.SENSITIVITY_SECRET)
    inner = tuple(
        (f.json_name, f.message_type)
        for f in fields
        if f.message_type is not None and f.message_type.full_name.startswith("amarre.")
    )
    return hidden, tuple((name, kind) for name, kind in inner if not kind.GetOptions().map_entry)


def _drop_secrets(printed: dict[str, Any], descriptor: Descriptor) -> None:
    hidden, inner = _secrets(descriptor)
    for name in hidden:
        printed.pop(name, None)
    for name, kind in inner:
        value = printed.get(name)
        for part in value if isinstance(value, list) else [value] if value else []:
            _drop_secrets(part, kind)
