"""JSON envelope: ``{"data": …, "error": null}`` or ``{"data": null, "error": {…}}``."""

import json
import math
from typing import Any

import grpc
from google.protobuf import symbol_database
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from starlette.responses import Response

from gateway.errors import MethodNotAllowedError, UnsupportedEncodingError
from gateway.rest.json_printer import to_json
from mesh.chassis.errors import MeshError, RemoteError, Violation, from_rpc_error, unpack
from mesh.contract import sensitivity
from mesh.contract.reasons import MESSAGES

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def encode(value: object) -> bytes:
    """Return *value* as JSON."""
    return _ENCODER.encode(value).encode()


def success(data: object, status: int = 200) -> Response:
    """Return the response that carries *data*."""
    return Response(encode({"data": data, "error": None}), status, media_type="application/json")


def failure(error: MeshError, request: Descriptor | None = None) -> Response:
    """Return the response for *error*; field paths use the JSON names of *request*."""
    return Response(
        encode({"data": None, "error": describe(error, request)}),
        error.contract.http,
        headers_of(error),
        media_type="application/json",
    )


def headers_of(error: MeshError) -> dict[str, str]:
    """Return the headers that tell a client what to do about *error*."""
    headers = {}
    if error.contract.http in {429, 503}:
        seconds = error.retry_after.total_seconds() if error.retry_after else 1
        headers["retry-after"] = str(max(1, math.ceil(seconds)))
    if isinstance(error, UnsupportedEncodingError):
        headers["accept-encoding"] = "identity"  # RFC 9110, section 15.5.16.
    if isinstance(error, MethodNotAllowedError):
        headers["allow"] = error.allowed
    return headers


def describe(error: MeshError, request: Descriptor | None = None) -> dict[str, Any]:
    """Return the ``error`` of the envelope."""
    described: dict[str, Any] = {"code": error.contract.code, "message": _message(error)}
    if error.metadata.get("cause"):
        described["cause"] = error.metadata["cause"]
    details = _details(error, request)
    if details:
        described["details"] = details
    return described


def as_mesh_error(error: Exception) -> MeshError | None:
    """Return *error* as a MeshError; None for an unexpected exception."""
    if isinstance(error, MeshError):
        return error
    if isinstance(error, grpc.aio.AioRpcError):
        return from_rpc_error(error)
    return None


def _message(error: MeshError) -> str:
    if isinstance(error, RemoteError) and not unpack(error.status, error_details_pb2.ErrorInfo):
        # The texts of gRPC and of proxies are not for users.
        return MESSAGES.get(error.contract.name, MESSAGES["INTERNAL"])
    return error.message


def _details(error: MeshError, request: Descriptor | None) -> dict[str, Any]:
    details: dict[str, Any] = {}
    for message in _messages(error):
        details |= to_json(sensitivity.without_personal(message))
    if error.violations:
        details["violations"] = [
            {"field": json_path(v, request), "description": v.description} for v in error.violations
        ]
    return details


def _messages(error: MeshError) -> list[Message]:
    """Return the details that are messages of our contracts."""
    if not isinstance(error, RemoteError):
        return list(error.details)
    found = []
    for packed in error.status.details:
        name = packed.TypeName()
        if name.startswith("amarre."):
            try:
                message = symbol_database.Default().GetSymbol(name)()
            except KeyError:
                continue  # A newer service may send types unknown to this gateway.
            if packed.Unpack(message):
                found.append(message)
    return found


def json_path(violation: Violation, request: Descriptor | None) -> str:
    """Return the path of a violation in JSON names: ``timeoutMs`` for ``timeout_ms``."""
    names, inside = [], request
    for name in filter(None, violation.field.split(".")):
        field = inside.fields_by_name.get(name) if inside else None
        names.append(field.json_name if field else name)
        inside = field.message_type if field else None
    return ".".join(names)
