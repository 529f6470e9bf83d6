"""
Reads a request that is malformed as a whole item by item, so that only bad items are lost.

A span, log record or data point that cannot be decoded is left out and counted. If what surrounds
it cannot be decoded, such as a resource, all items below are. A scope or exemplar costs no item.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from mesh.console.intake import otlp_messages

_LISTS = {
    *("resourceSpans", "scopeSpans", "spans", "resourceLogs", "scopeLogs", "logRecords"),
    *("resourceMetrics", "scopeMetrics", "metrics", "dataPoints"),
    *("sum", "gauge", "histogram", "exponentialHistogram", "summary"),
}
"""The fields that lead to items, and those of the items."""
_UNNEEDED = {"scope", "schemaUrl", "exemplars"}
"""Fields that are left out if they cannot be decoded: items are stored without them."""
_UNNEEDED_JSON = _UNNEEDED | {"schema_url"}
ERRORS = (
    *(json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError),
    *(DecodeError, OverflowError, SystemError),
)
"""What `json_format.ParseDict` raises for an object that is not ProtoJSON; SystemError for a key
with a lone surrogate."""


def holds_items(message: Any) -> bool:
    """Return whether *message* holds a span, log record or data point."""
    return any(not _leads_on(part.DESCRIPTOR) or holds_items(part) for part in _below(message))


def _below(message: Any) -> list[Any]:
    """Return the messages in *message* that are items or lead to some."""
    found = [pair for pair in message.ListFields() if pair[0].json_name in _LISTS]
    return [part for field, value in found for part in _parts(field, value)]


def _parts(field: FieldDescriptor, value: Any) -> Any:
    """Return what *field* holds, which may be repeated."""
    return value if field.is_repeated else [value]


def _leads_on(kind: Descriptor) -> bool:
    return any(field.json_name in _LISTS for field in kind.fields)


def from_json(found: Mapping[str, Any], message: Any) -> int:
    """
    Add what can be decoded of *found*, a ProtoJSON object, to *message*.

    Returns:
        The number of items that were left out.
    """
    lost = _merge(found, message)
    return _count_json(found) if lost is None else lost


def _merge(found: Any, message: Any) -> int | None:
    """Add *found* to *message*; return the number of lost items, None if it is itself bad."""
    if not isinstance(found, dict):
        return None
    inner = _inner(found, message.DESCRIPTOR)
    # Points of two kinds: a metric has one.
    if sum(field.containing_oneof is not None for field in inner.values()) > 1:
        return None
    rest = {key: value for key, value in found.items() if key not in inner}
    needed = {key: value for key, value in rest.items() if key not in _UNNEEDED_JSON}
    if not (_parse(rest, message) or _parse(needed, message)):
        return None
    lost = 0
    for name, field in inner.items():
        target = getattr(message, field.name)
        for part in _parts(field, found[name]):
            below = _merge(part, target.add() if field.is_repeated else target)
            if below is None:
                below = _count_json(part)
                if field.is_repeated:
                    del target[-1]
                else:
                    message.ClearField(field.name)
            lost += below
    return lost


def _parse(found: dict[str, Any], message: Any) -> bool:
    """Add *found* to *message*; return whether it can be decoded."""
    try:
        message.MergeFrom(json_format.ParseDict(found, type(message)(), ignore_unknown_fields=True))
    except ERRORS:
        return False
    return True


def _inner(found: Mapping[str, Any], kind: Descriptor) -> dict[str, FieldDescriptor]:
    return {
        name: field
        for field in kind.fields
        if field.json_name in _LISTS
        for name in (field.json_name, field.name)
        if isinstance(found.get(name), list if field.is_repeated else dict)
    }


def _count_json(found: Any) -> int:
    """Return how many items *found* holds, at least one."""
    if isinstance(found, tuple):
        (found,) = found  # The object has a key that is given twice.
    if not isinstance(found, dict):
        return 1
    below = [value for key, value in found.items() if key in _LISTS]
    parts = [part for value in below for part in (value if isinstance(value, list) else [value])]
    return sum(map(_count_json, parts)) if below else 1


def from_protobuf(signal: str, body: bytes) -> tuple[bytes, int]:
    """
    Return *body* without the items that cannot be decoded, and their number.

    Raises:
        DecodeError: The body is not a message at all.
    """
    kind, original = otlp_messages.UNCHECKED[signal]
    message = kind.FromString(body)
    lost = _keep(message, original)
    return (message.SerializeToString(), lost) if lost is not None else (b"", _count(message))


def _keep(message: Any, original: Descriptor) -> int | None:
    """Remove bad items from *message*; return their number, None if it is itself bad."""
    lost = 0
    for field, value in message.ListFields():
        meant = original.fields_by_name[field.name]
        parts = _parts(field, value)
        kind: Any = meant.message_type
        if field.message_type is None:
            counts = [0 if _is_readable(meant, part) else None for part in parts]
        else:
            counts = [_keep(part, kind) for part in parts]
        if None in counts and meant.json_name in _UNNEEDED:
            message.ClearField(field.name)
            continue
        if None in counts and meant.json_name not in _LISTS:
            return None
        if field.message_type is None:
            continue
        good = []
        for part, below in zip(parts, counts, strict=True):
            lost += _count(part) if below is None else below
            if below is not None:
                good.append(part)
        if len(good) == len(counts):
            continue
        message.ClearField(field.name)
        if field.is_repeated:
            getattr(message, field.name).extend(good)
    return lost


def _count(message: Any) -> int:
    """Return how many items *message* holds, at least one."""
    parts = _below(message)
    return sum(map(_count, parts)) if parts else 1


def _is_readable(meant: FieldDescriptor, part: Any) -> bool:
    try:
        if meant.message_type is not None:
            message_factory.GetMessageClass(meant.message_type).FromString(part)
        elif meant.type == FieldDescriptor.TYPE_STRING:
            part.decode()
    except (DecodeError, UnicodeDecodeError):
        return False
    return True
