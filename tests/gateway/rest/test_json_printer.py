"""JSON printing: as protobuf's library prints, without secrets."""

from typing import Any

import pytest
from amarre.auth.v1 import auth_service_pb2
from amarre.health.v1 import health_pb2
from amarre.survey.v1 import survey_pb2, survey_service_pb2
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.rest.json_printer import answer_status, field_to_json, to_json
from mesh.contract import policy

SECRET = {"sessionSecret", "userToken", "secret"}
OUTPUTS = [method.descriptor.output_type for method in policy.load()]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
KINDS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_STRING: TEXT,
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
}


def fill(draw: Any, descriptor: Descriptor, depth: int = 4) -> Any:
    """Return a message of type *descriptor* with some fields set at random."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if not draw(st.booleans()):
            continue
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            getattr(message, field.name).update(draw(st.dictionaries(TEXT, TEXT, max_size=2)))
        elif kind is not None and kind.full_name == "google.protobuf.Timestamp":
            getattr(message, field.name).seconds = draw(st.integers(0, 4_000_000_000))
        elif kind is not None and depth and field.is_repeated:
            getattr(message, field.name).append(fill(draw, kind, depth - 1))
        elif kind is not None and depth:
            getattr(message, field.name).CopyFrom(fill(draw, kind, depth - 1))
        elif kind is None and field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(one(field), max_size=2)))
        elif kind is None:
            setattr(message, field.name, draw(one(field)))
    return message


def one(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Return values of one scalar field; for enums, the known values and an unknown one."""
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values] + [99])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=5)
    return KINDS[field.cpp_type]


def without_secrets(printed: Any) -> Any:
    """Return JSON values without the fields marked as secret."""
    if isinstance(printed, dict):
        return {k: without_secrets(v) for k, v in printed.items() if k not in SECRET}
    if isinstance(printed, list):
        return [without_secrets(part) for part in printed]
    return printed


@pytest.mark.parametrize("descriptor", OUTPUTS, ids=lambda d: d.name)
def test_as_the_library(descriptor: Descriptor) -> None:
    """Every response message is printed as protobuf's own library prints it."""

    @settings(max_examples=30, deadline=None, database=None, derandomize=True)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        message = fill(data.draw, descriptor)
        library = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
        assert without_secrets(library) == to_json(message)

    check()


def test_secrets_are_left_out() -> None:
    """A secret field is never printed, not even empty."""
    message = auth_service_pb2.LogInResponse(logged_in=True, session_secret="x")
    assert {"loggedIn": True} == to_json(message)


def test_one_field() -> None:
    """A single field is printed as within its message: lists as lists, absent as empty."""
    response = survey_service_pb2.ListRequestsResponse()
    assert [] == field_to_json(response, "requests")
    response.requests.add(id="1", fields={"a": "b"}, status=survey_pb2.REQUEST_STATUS_DONE)
    assert to_json(response)["requests"] == field_to_json(response, "requests")
    assert to_json(response) == field_to_json(response, "")


@pytest.mark.parametrize(
    ("status", "http"),
    [
        (health_pb2.HEALTH_STATUS_HEALTHY, 200),
        (health_pb2.HEALTH_STATUS_DEGRADED, 503),
        (health_pb2.HEALTH_STATUS_UNSPECIFIED, 503),
    ],
)
def test_status(status: health_pb2.HealthStatus.ValueType, http: int) -> None:
    """An enum value declares the HTTP status of the response."""
    assert http == answer_status(health_pb2.MeshStatus(status=status), "status")
    assert 200 == answer_status(health_pb2.MeshStatus(status=status), "")
