"""Validation of requests against the rules of their contract."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import protovalidate
from amarre.mesh.v1 import policy_pb2 as pb
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message

from mesh.chassis.errors import InvalidRequestError, Violation


def validate(request: Message) -> None:
    """Check *request* against its ``buf.validate`` rules, and what may be stored for U+0000.

    Raises:
        InvalidRequestError: A rule is broken. The reason is the one that the contract assigns to
            the first such field with ``(amarre.mesh.v1.violation)``.
    """
    if not request.ByteSize() and _may_be_empty(request.DESCRIPTOR):
        return
    _validate(request)


@functools.cache
def _may_be_empty(descriptor: Descriptor) -> bool:
    """Whether an empty message keeps the rules; most requests have no parameter."""
    try:
        _validate(message_factory.GetMessageClass(descriptor)())
    except InvalidRequestError:
        return False
    return True


def _validate(request: Message) -> None:
    violations = list(_nul(request)) if _may_change(request.DESCRIPTOR) else []
    try:
        protovalidate.validate(request)
    except protovalidate.ValidationError as exc:
        violations += [
            Violation(_path(v.proto), _description(request.DESCRIPTOR, v.proto), v.proto.rule_id)
            for v in exc.violations
        ]
    if violations:
        raise invalid_request(request.DESCRIPTOR, violations)


@functools.cache
def _may_change(descriptor: Descriptor) -> bool:
    """Whether a request of this type may store something; reads find nothing for U+0000."""
    return any(
        method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
        for service in descriptor.file.services_by_name.values()
        for method in service.methods
        if method.input_type is descriptor
    )


def _nul(request: Message) -> Iterator[Violation]:
    """Yield the fields with U+0000, which PostgreSQL cannot store."""
    for field, value in request.ListFields():
        if any("\0" in text for text in _texts(value)):
            yield Violation(field.name, "must not contain U+0000", "string.nul")


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Message():
            yield from _texts([part for _, part in value.ListFields()])
        case Mapping():
            yield from _texts([*value.keys(), *value.values()])
        case Sequence() if not isinstance(value, bytes):
            for part in value:
                yield from _texts(part)


def invalid_request(descriptor: Any, violations: list[Violation]) -> InvalidRequestError:
    """Return the error for broken rules of a message of type *descriptor*."""
    named = [_named_reason(descriptor, violation) for violation in violations]
    return InvalidRequestError(
        "The request violates its contract: "
        + "; ".join(
            f"{v.field}: {v.description}" if v.field else v.description for v in violations
        ),
        violations=violations,
        area=descriptor.full_name.split(".")[1],
        as_reason=next(filter(None, named), "INVALID_REQUEST"),
    )


def _named_reason(descriptor: Any, violation: Violation) -> str:
    field = descriptor.fields_by_name.get(violation.field.split(".")[0].split("[")[0])
    return "" if field is None else str(field.GetOptions().Extensions[pb.violation])


def _description(descriptor: Any, violation: Any) -> str:
    """Return what the contract says about a broken pattern instead of the regular expression."""
    if violation.rule_id != "string.pattern":
        return str(violation.message)
    *parents, last = (element.field_name for element in violation.field.elements)
    for name in parents:
        descriptor = descriptor.fields_by_name[name].message_type
    return f"must be {descriptor.fields_by_name[last].GetOptions().Extensions[pb.accepts]}"


def _path(violation: object) -> str:
    field = getattr(violation, "field", None)
    return ".".join(element.field_name for element in field.elements) if field else ""
