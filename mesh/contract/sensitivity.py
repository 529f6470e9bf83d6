"""Personal and secret fields, and redacted messages."""

import functools
from typing import TypeVar

from amarre.mesh.v1 import policy_pb2 as pb
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


def of(field: FieldDescriptor) -> "pb.Sensitivity.ValueType":
    """Return the sensitivity of *field* in the contract."""
    sensitivity: pb.Sensitivity.ValueType = field.GetOptions().Extensions[pb.sensitivity]
    return sensitivity


def without_personal(message: M) -> M:
    """Return a copy for logging, without personal and secret fields."""
    if not _has_personal(message.DESCRIPTOR):
        return message
    copy = type(message)()
    copy.CopyFrom(message)
    _clear(copy)
    return copy


def _clear(message: Message) -> None:
    for field, value in message.ListFields():
        if of(field) >= pb.SENSITIVITY_PERSONAL:
            message.ClearField(field.name)
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for part in value if field.is_repeated else [value]:
                _clear(part)


@functools.cache
def _has_personal(descriptor: Descriptor, seen: frozenset[str] = frozenset()) -> bool:
    """Return whether messages of this type can contain such a field, at any depth."""
    if descriptor.full_name in seen:
        return False
    seen |= {descriptor.full_name}
    return any(
        of(field) >= pb.SENSITIVITY_PERSONAL
        or (field.message_type is not None and _has_personal(field.message_type, seen))
        for field in descriptor.fields
    )
