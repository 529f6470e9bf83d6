"""Error reasons, from the ``ErrorReason`` enums of the contracts."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

from amarre.mesh.v1 import policy_pb2 as pb
from google.protobuf.descriptor import EnumDescriptor
from google.rpc import code_pb2

from mesh.contract.sources import areas
from mesh.contract.wire import BODY_BYTES

AREAS = areas("error_reason_pb2.py")
PREFIX = "ERROR_REASON_"
MESSAGES: Mapping[str, str] = {
    "UNAVAILABLE": "The service is temporarily unavailable; try again later.",
    "DEADLINE_EXCEEDED": "The response took too long; try again.",
    "RATE_LIMITED": "Too many requests; try again later.",
    "UNAUTHENTICATED": "Not signed in.",
    "PERMISSION_DENIED": "Access denied.",
    "NOT_FOUND": "Not found.",
    "INVALID_REQUEST": "The request is invalid.",
    "PAYLOAD_TOO_LARGE": f"The body exceeds the limit of {BODY_BYTES} bytes.",
    "INTERNAL": "An unexpected error occurred.",
}
"""Messages of errors without details, by reason: the gateway and Envoy use the same."""
CALL_MESSAGES: Mapping[str, str] = {
    **MESSAGES,
    "PERMISSION_DENIED": "The caller may not call this method.",
    "DEADLINE_EXCEEDED": "The call exceeded its deadline.",
}
"""The same for gRPC calls: services and Envoy use the same."""


@dataclass(frozen=True)
class Reason:
    """
    One error reason.

    ``name`` is the reason in ErrorInfo (``OPEN_REQUEST_EXISTS``), ``domain`` the one that defines
    it (``survey.amarre``), ``grpc`` the name of the status code (``ALREADY_EXISTS``), ``http`` the
    gateway's status, and ``code`` the code in the JSON envelope.
    """

    name: str
    domain: str
    grpc: str
    http: int
    code: str


def find(area: str, name: str) -> Reason | None:
    """Return the reason *name* of *area*, or else of the whole mesh; None if neither has it."""
    table = _table()
    return table.get((f"{area}.amarre", name)) or table.get(("mesh.amarre", name))


def by_domain(domain: str, name: str) -> Reason | None:
    """Return the reason of an ErrorInfo; None if the contracts do not define it."""
    return _table().get((domain, name))


def of_mesh(name: str) -> Reason:
    """Return a reason of the whole mesh; KeyError if there is none."""
    return _table()["mesh.amarre", name]


def every() -> tuple[Reason, ...]:
    """Return all reasons in the order of the contracts."""
    return tuple(_table().values())


@functools.cache
def _table() -> Mapping[tuple[str, str], Reason]:
    found = {}
    for area in AREAS:
        module = import_module(f"amarre.{area}.v1.error_reason_pb2")
        for reason in _reasons(module.DESCRIPTOR.enum_types_by_name["ErrorReason"], area):
            found[reason.domain, reason.name] = reason
    return found


def _reasons(enum: EnumDescriptor, area: str) -> list[Reason]:
    return [
        Reason(
            name=value.name.removeprefix(PREFIX),
            domain=f"{area}.amarre",
            grpc=code_pb2.Code.Name(mapping.grpc),
            http=mapping.http,
            code=mapping.code,
        )
        for value in enum.values
        if (mapping := value.GetOptions().Extensions[pb.error]).http
    ]
