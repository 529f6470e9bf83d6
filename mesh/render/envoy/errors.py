"""
Local replies of Envoy: a page for people, the JSON envelope for scripts, ErrorInfo for gRPC.

Codes and statuses are those of the contracts' error reasons, so that clients need not know whether
a proxy or a service responded.
"""

import base64
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from google.rpc import code_pb2, error_details_pb2, status_pb2

from mesh.contract import reasons
from mesh.contract.reasons import CALL_MESSAGES, MESSAGES
from mesh.contract.wire import LOG_OUT_PATHS, SESSION_COOKIE

_JSON = (
    # HTTP status of Envoy, reason, message.
    (400, "INVALID_REQUEST", "The request is malformed."),
    (403, "PERMISSION_DENIED", MESSAGES["PERMISSION_DENIED"]),
    (404, "NOT_FOUND", "Path not found."),
    (405, "METHOD_NOT_ALLOWED", "This path does not support this method."),
    (408, "DEADLINE_EXCEEDED", "The request was not received in time."),
    (413, "PAYLOAD_TOO_LARGE", MESSAGES["PAYLOAD_TOO_LARGE"]),
    (426, "INVALID_REQUEST", "This protocol version is not supported."),
    (429, "RATE_LIMITED", MESSAGES["RATE_LIMITED"]),
    (431, "INVALID_REQUEST", "The request headers are too large."),
    (500, "INTERNAL", MESSAGES["INTERNAL"]),
    (501, "INVALID_REQUEST", "This transfer coding is not supported."),
    (502, "UPSTREAM_ERROR", "The upstream response is invalid."),
    (503, "UNAVAILABLE", MESSAGES["UNAVAILABLE"]),
    (504, "DEADLINE_EXCEEDED", MESSAGES["DEADLINE_EXCEEDED"]),
)
_UNREADABLE = frozenset({400, 404, 408, 426, 431, 501})
"""Statuses of requests that Envoy cannot read, such as ``OPTIONS *``, and that have no id yet."""
_REQUEST_ID = "x-request-id"
_NO_ID = {"name": _REQUEST_ID, "present_match": False}
LOG_OUT = {
    "name": ":path",
    "string_match": {
        "safe_regex": {"regex": rf"({'|'.join(map(re.escape, LOG_OUT_PATHS))})(\?.*)?"}
    },
}
"""Matches the path of log-outs."""
_NAVIGATION = {"name": "sec-fetch-mode", "string_match": {"exact": "navigate"}}
"""Matches requests whose response a person reads (Fetch Metadata, section 2.2)."""
_PAGE = """<!doctype html>
<html lang="fr">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>AMARRE</title>
<h1>Une erreur s’est produite</h1>
<p>Cette page ne peut pas être affichée (%RESPONSE_CODE%). Réessayez dans un instant, ou
revenez à l’accueil.</p>
<p><a href="/">Revenir à l’accueil</a></p>
<div lang="en">
<h1>Something went wrong</h1>
<p>This page cannot be shown (%RESPONSE_CODE%). Try again in a moment, or go back to the home
page.</p>
<p><a href="/">Back to the home page</a></p>
</div>
"""
_OF_OUR_PAGES = {"name": "sec-fetch-site", "string_match": {"exact": "same-origin"}}
_ENDED = "Max-Age=0; Path=/; HttpOnly; SameSite=Strict; Secure"
_GRPC = (
    *((401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED")),
    *((503, "UNAVAILABLE"), (504, "DEADLINE_EXCEEDED")),
)
_RETRY_AFTER = timedelta(seconds=1)
_RETRIED = frozenset({429, 503})
"""Statuses after which the same request may succeed; the response says when."""
HEALTH_CHECK_FAILED = "x-envoy-immediate-health-check-fail"
"""Response header that makes a caller's Envoy eject the replica, like a failed health check."""

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
"""Headers of JSON errors; responses of the gateway have their own."""


def json_replies(*, hsts: timedelta | None) -> dict[str, Any]:
    """Return the ``local_reply_config`` of an edge; *hsts* for one with TLS."""
    headers = dict(SECURITY_HEADERS)
    headers[_REQUEST_ID] = "%REQ(X-REQUEST-ID)%"
    if hsts is not None:
        headers["strict-transport-security"] = f"max-age={int(hsts.total_seconds())}"
    # Other sites cannot log anybody out: browsers do not let them choose this header.
    closed = {**headers, "set-cookie": f"{SESSION_COOKIE}=; {_ENDED}"}
    log_outs = [
        _limited_to(_json_mapper(*row, headers=closed), LOG_OUT, _OF_OUR_PAGES) for row in _JSON
    ]
    without_id = {**headers, _REQUEST_ID: "%UNIQUE_ID%"}
    unreadable = [
        _limited_to(_json_mapper(*row, headers=without_id), _NO_ID)
        for row in _JSON
        if row[0] in _UNREADABLE
    ]
    pages = [
        *(_page_mapper(status, headers=headers) for status in sorted(_RETRIED)),
        _page_mapper(400, _NO_ID, headers=without_id, op="GE"),
        _page_mapper(400, headers=headers, op="GE"),
    ]
    return {
        "mappers": [
            _page_mapper(503, LOG_OUT, _OF_OUR_PAGES, headers=closed),
            *log_outs,
            *pages,
            *unreadable,
            *(_json_mapper(*row, headers=headers) for row in _JSON),
        ]
    }


def _page_mapper(
    status: int, *matchers: dict[str, Any], headers: Mapping[str, str], op: str = "EQ"
) -> dict[str, Any]:
    mapper = _mapper(status, headers, op=op)
    mapper["body_format_override"] = {
        "text_format_source": {"inline_string": _PAGE},
        "content_type": "text/html; charset=utf-8",
    }
    return _limited_to(mapper, _NAVIGATION, *matchers)


def _limited_to(mapper: dict[str, Any], *headers: dict[str, Any]) -> dict[str, Any]:
    """Limit *mapper* to requests with *headers*."""
    filters = [mapper["filter"], *({"header_filter": {"header": one}} for one in headers)]
    return {**mapper, "filter": {"and_filter": {"filters": filters}}}


def _json_mapper(
    status: int, reason: str, message: str, *, headers: Mapping[str, str]
) -> dict[str, Any]:
    mapper = _mapper(status, headers)
    error = {"code": reasons.of_mesh(reason).code, "message": message}
    mapper["body_format_override"] = {"json_format": {"data": None, "error": error}}
    return mapper


def _mapper(status: int, headers: Mapping[str, str], *, op: str = "EQ") -> dict[str, Any]:
    if op == "EQ" and status in _RETRIED:
        headers = {**headers, "retry-after": str(int(_RETRY_AFTER.total_seconds()))}
    return {
        "filter": _has_status(status, op=op),
        "headers_to_add": [_header(name, value) for name, value in headers.items()],
    }


def grpc_replies(*, for_callers: bool = False) -> dict[str, Any]:
    """
    Return the ``local_reply_config`` of gRPC listeners.

    With *for_callers*, for the listener in front of the process: if the process is unreachable,
    the reply makes the caller's proxy eject this replica until a health check succeeds. A status
    returned by the process itself never has this effect.

    Envoy answers 403 for a token with the wrong audience, services UNAUTHENTICATED; and 401 while
    it has no keys to verify a token with, services UNAVAILABLE. These replies are mapped, so that
    callers see the same whichever refuses.
    """
    refused = "response.code_details.startsWith('jwt_authn')"
    no_keys = "response.code_details.contains('Jwks_remote_fetch_is_failed')"
    mappers = [
        _rewrite(401, no_keys, 503),
        _rewrite(403, refused, 401),
        *(_grpc_mapper(*row) for row in _GRPC),
    ]
    return {"mappers": [_process_gone(), *mappers] if for_callers else mappers}


def _process_gone() -> dict[str, Any]:
    """Return the reply for a process that refuses connections or closes them without responding."""
    gone = _grpc_mapper(*next(row for row in _GRPC if row[0] == 503))
    flags = {"response_flag_filter": {"flags": ["UF", "UC", "UH"]}}
    gone["filter"] = {"and_filter": {"filters": [gone["filter"], flags]}}
    gone["headers_to_add"].append(_header(HEALTH_CHECK_FAILED, "true"))
    return gone


def _grpc_mapper(status: int, reason: str) -> dict[str, Any]:
    return {
        "filter": _has_status(status),
        "headers_to_add": [_header("grpc-status-details-bin", _details(reason))],
    }


def _rewrite(status: int, condition: str, new_status: int) -> dict[str, Any]:
    mapper = _grpc_mapper(*next(row for row in _GRPC if row[0] == new_status))
    mapper["filter"] = {"and_filter": {"filters": [_has_status(status), _holds(condition)]}}
    mapper["status_code"] = new_status
    return mapper


def _holds(condition: str) -> dict[str, Any]:
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": "type.googleapis.com/"
                "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": condition,
            },
        }
    }


def _details(reason: str) -> str:
    contract, message = reasons.of_mesh(reason), CALL_MESSAGES[reason]
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


def _has_status(status: int, *, op: str = "EQ") -> dict[str, Any]:
    value = {"default_value": status, "runtime_key": f"local_reply.{status}"}
    return {"status_code_filter": {"comparison": {"op": op, "value": value}}}


def _header(name: str, value: str) -> dict[str, Any]:
    return {
        "header": {"key": name, "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
