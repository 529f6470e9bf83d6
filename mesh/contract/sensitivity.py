"""Which fields tell something about a person or open a door, and messages without them."""

import functools
from typing import TypeVar

from amarre.mesh.v1 import policy_pb2 as pb
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


def of(field: FieldDescriptor) -> "pb.Sensitivity.ValueType":
    """Return what the contract says of *field*."""
    sensitivity: pb.Sensitivity.ValueType = field.GetOptions().Extensions[pb.sensitivity]
    return sensitivity


def without_personal(message: M) -> M:
    """Return a copy that may be logged: without personal and secret fields."""
    return _without(message, pb.SENSITIVITY_PERSONAL)


def without_secrets(message: M) -> M:
    """Return a copy that may be shown to the user concerned: without secret fields."""
    return _without(message, pb.SENSITIVITY_SECRET)


def _without(message: M, least: "pb.Sensitivity.ValueType") -> M:
    if not _concerned(message.DESCRIPTOR, least):
        return message
    copy = type(message)()
    copy.CopyFrom(message)
    _clear(copy, least)
    return copy


def _clear(message: Message, least: "pb.Sensitivity.ValueType") -> None:
    for field, value in message.ListFields():
        if of(field) >= least:
            message.ClearField(field.name)
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for part in value if field.is_repeated else [value]:
                _clear(part, least)


@functools.cache
def _concerned(
    descriptor: Descriptor, least: "pb.Sensitivity.ValueType", seen: frozenset[str] = frozenset()
) -> bool:
    """Say whether a message of this type can hold such a field at all, at any depth."""
    if descriptor.full_name in seen:
        return False
    seen |= {descriptor.full_name}
    return any(
        of(field) >= least
        or (field.message_type is not None and _concerned(field.message_type, least, seen))
        for field in descriptor.fields
    )
