"""
What an Envoy answers by itself: the JSON envelope to browsers, ErrorInfo to gRPC clients.

Codes and statuses are those of the contracts' error reasons, so that nobody can tell from an
answer whether a proxy or a service gave it.
"""

import base64
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from google.rpc import code_pb2, error_details_pb2, status_pb2

from mesh.contract import reasons

_JSON = (
    # HTTP status of Envoy, reason, what is said.
    (400, "INVALID_REQUEST", "The request is malformed."),
    (403, "PERMISSION_DENIED", "This is not allowed."),
    (404, "NOT_FOUND", "There is nothing at this path."),
    (405, "METHOD_NOT_ALLOWED", "This path does not take this method."),
    (408, "DEADLINE_EXCEEDED", "The request did not arrive in time."),
    (413, "PAYLOAD_TOO_LARGE", "The body may have 65536 bytes at most."),
    (426, "INVALID_REQUEST", "This protocol version is not served."),
    (429, "RATE_LIMITED", "Too many requests; try again later."),
    (431, "INVALID_REQUEST", "The headers are too large."),
    (500, "INTERNAL", "Something unexpected happened."),
    (502, "UPSTREAM_ERROR", "The answer could not be read."),
    (503, "UNAVAILABLE", "The service is away for the moment; try again soon."),
    (504, "DEADLINE_EXCEEDED", "The answer took too long; try again."),
)
_GRPC = (
    (401, "UNAUTHENTICATED", "Nobody is signed in, or no longer is."),
    (403, "PERMISSION_DENIED", "The caller may not call this method."),
    (503, "UNAVAILABLE", "The service is away for the moment."),
    (504, "DEADLINE_EXCEEDED", "The call took longer than its deadline."),
)
_RETRY_AFTER = timedelta(seconds=1)
_RETRIED = frozenset({429, 503})
"""Statuses after which the same request may succeed; the answer says when."""
HEALTH_CHECK_FAILED = "x-envoy-immediate-health-check-fail"
"""Response header on which a caller's Envoy takes the replica out, as a failed check would."""

SECURITY_HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""What a JSON error needs; answers of the gateway bring their own."""


def json_replies(*, hsts: timedelta | None) -> dict[str, Any]:
    """Return the ``local_reply_config`` of an edge; *hsts* for one with TLS."""
    headers = dict(SECURITY_HEADERS)
    headers["x-request-id"] = "%REQ(X-REQUEST-ID)%"
    if hsts is not None:
        headers["strict-transport-security"] = f"max-age={int(hsts.total_seconds())}"
    return {"mappers": [_json_mapper(*row, headers=headers) for row in _JSON]}


def _json_mapper(
    status: int, reason: str, message: str, *, headers: Mapping[str, str]
) -> dict[str, Any]:
    if status in _RETRIED:
        headers = {**headers, "retry-after": str(int(_RETRY_AFTER.total_seconds()))}
    return {
        "filter": _has_status(status),
        "headers_to_add": [_header(name, value) for name, value in headers.items()],
        "body_format_override": {
            "json_format": {
                "data": None,
                "error": {"code": reasons.of_mesh(reason).code, "message": message},
            }
        },
    }


def grpc_replies(*, for_callers: bool = False) -> dict[str, Any]:
    """
    Return the ``local_reply_config`` of listeners that speak gRPC.

    With *for_callers* the listener is the one in front of the process: when that cannot be reached,
    the reply makes the caller's proxy leave this replica out until a health check succeeds. A
    status that the process itself reports never has this effect.

    A token for another audience is 403 to Envoy; services call it unauthenticated, and so does
    the mesh whichever of the two sees it first.
    """
    rewrite = _grpc_mapper(401, "UNAUTHENTICATED", _GRPC[0][2])
    rewrite["filter"] = {"and_filter": {"filters": [_has_status(403), _refused_by_jwt()]}}
    rewrite["status_code"] = 401
    mappers = [rewrite, *(_grpc_mapper(*row) for row in _GRPC)]
    return {"mappers": [_process_gone(), *mappers] if for_callers else mappers}


def _process_gone() -> dict[str, Any]:
    """Return the answer for a process that refuses connections or closes them before it answers."""
    gone = _grpc_mapper(*next(row for row in _GRPC if row[0] == 503))
    flags = {"response_flag_filter": {"flags": ["UF", "UC", "UH"]}}
    gone["filter"] = {"and_filter": {"filters": [gone["filter"], flags]}}
    gone["headers_to_add"].append(_header(HEALTH_CHECK_FAILED, "true"))
    return gone


def _grpc_mapper(status: int, reason: str, message: str) -> dict[str, Any]:
    return {
        "filter": _has_status(status),
        "headers_to_add": [_header("grpc-status-details-bin", _details(reason, message))],
    }


def _refused_by_jwt() -> dict[str, Any]:
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": "type.googleapis.com/"
                "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": "response.code_details.startsWith('jwt_authn')",
            },
        }
    }


def _details(reason: str, message: str) -> str:
    contract = reasons.of_mesh(reason)
    status = status_pb2.Status(code=code_pb2.Code.Value(contract.grpc), message=message)
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=contract.name, domain=contract.domain)
    )
    if reason == "UNAVAILABLE":
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(_RETRY_AFTER)
        status.details.add().Pack(retry)
    data = status.SerializeToString(deterministic=True)
    return base64.b64encode(data).decode().rstrip("=")


def _has_status(status: int) -> dict[str, Any]:
    value = {"default_value": status, "runtime_key": f"local_reply.{status}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _header(name: str, value: str) -> dict[str, Any]:
    return {
        "header": {"key": name, "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
