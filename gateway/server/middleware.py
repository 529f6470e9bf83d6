"""Outermost middleware: request id, security headers, body limit, last-resort errors."""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import NoReturn

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.error_responses import ErrorResponses
from gateway.errors import PayloadTooLargeError
from gateway.rest.event_stream import EVENT_STREAM
from gateway.server.admission import Admission, age_seconds
from gateway.server.admission import receive as receive_at
from gateway.server.request_telemetry import (
    REQUEST_ID,
    VERBS,
    RequestTelemetry,
    duration_of,
)
from mesh.chassis import call
from mesh.chassis.errors import MeshError, UnavailableError
from mesh.chassis.telemetry import tracing
from mesh.contract.reasons import MESSAGES
from mesh.contract.wire import ALWAYS_SERVED, BODY_BYTES, CANARY_HEADER, LOG_OUT_PATHS

log = structlog.get_logger("gateway")

_DISCARDED_BYTES = 16 * 1024 * 1024
"""How much of an oversized body is read and discarded, so that the client can read the error."""
_DISCARD_SECONDS = 1.0
_BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
COMMON_HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    # Not "no-referrer": browsers without Fetch Metadata would send "Origin: null" with forms.
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (
        b"permissions-policy",
        b"camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
"""Headers of every response that does not override them."""
_COMMON_NAMES = frozenset(name for name, _ in COMMON_HEADERS)
Headers = list[tuple[bytes, bytes]]


class RequestMiddleware:
    """Wraps the application; adds common headers and answers every exception."""

    def __init__(
        self,
        app: ASGIApp,
        errors: ErrorResponses,
        *,
        behind_envoy: bool,
        hsts_seconds: int,
        admission: Admission,
    ) -> None:
        self._app = app
        self._errors = errors
        self._behind_envoy = behind_envoy
        self._hsts = f"max-age={hsts_seconds}".encode()
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        # The edge decides about tracing and canaries; what clients send does not count.
        trusted = headers if self._behind_envoy else {}
        age = age_seconds(trusted)
        try:
            # A body may arrive slowly, which is not a queue of ours.
            queued = 0.0 if _BODY_HEADERS & headers.keys() else age
            admitted = self._admission.admit(queued, always=scope["path"] in ALWAYS_SERVED)
        except UnavailableError as error:
            await self._refuse(scope, headers, send, error)
            return
        receive_at(scope, age)
        call.to_canary.set(trusted.get(CANARY_HEADER.encode()) == "1")
        telemetry = RequestTelemetry(
            scope, trusted.get(b"traceparent", ""), behind_envoy=self._behind_envoy
        )
        headers_to_add = self._common_headers(scope, headers, telemetry.traceresponse)
        response = _Response(scope, send, headers_to_add)
        response.on_stream = admitted.release
        try:
            await self._serve(scope, headers, receive, response)
        finally:
            admitted.release()
            telemetry.end(response.status)

    async def _serve(
        self, scope: Scope, headers: dict[bytes, str], receive: Receive, response: "_Response"
    ) -> None:
        body = _LimitedBody(receive)
        try:
            # Log-out reads at most the limit, and ends the session all the same.
            if scope["path"] not in LOG_OUT_PATHS and _is_too_large(headers):
                await body.refuse()
            await self._app(scope, body, response)
        except MeshError as error:
            await self._fail(scope, receive, response, error)
        except Exception:
            log.exception("request failed", path=scope["path"][:200])
            await self._fail(
                scope,
                receive,
                response,
                MeshError("An unexpected error occurred; see the log for details."),
            )

    async def _refuse(
        self,
        scope: Scope,
        headers: dict[bytes, str],
        send: Send,
        error: UnavailableError,
    ) -> None:
        """Answer a request that is not admitted, as cheaply as possible."""
        # No span and no log line: under overload they would cost more than the request.
        verb = scope["method"] if scope["method"] in VERBS else "other"
        duration_of(verb, "other", 503).observe(0)
        response = self._errors.overloaded(Request(scope), error)
        added = self._common_headers(scope, headers, tracing.new_traceparent())
        start = {"type": "http.response.start", "status": response.status_code}
        await send({**start, "headers": [*response.raw_headers, *COMMON_HEADERS, *added]})
        await send({"type": "http.response.body", "body": bytes(response.body)})

    async def _fail(
        self, scope: Scope, receive: Receive, response: "_Response", error: MeshError
    ) -> None:
        # A response that has started can only be cut off: the server closes the connection when
        # an application returns before finishing.
        if response.status == 0:
            await self._errors(Request(scope), error)(scope, receive, response)

    def _common_headers(self, scope: Scope, headers: dict[bytes, str], trace: str) -> Headers:
        request_id = headers.get(b"x-request-id", "") if self._behind_envoy else ""
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = tracing.new_id(128)
        scope[REQUEST_ID] = request_id
        structlog.contextvars.bind_contextvars(request_id=request_id)
        headers_to_add = [
            (b"x-request-id", request_id.encode()),
            (b"traceresponse", trace.encode()),
        ]
        forwarded = headers.get(b"x-forwarded-proto", "") if self._behind_envoy else ""
        if (forwarded or scope["scheme"]) == "https":
            headers_to_add.append((b"strict-transport-security", self._hsts))
        return headers_to_add


class _Response:
    """Sends the response with the common headers; HEAD gets no body."""

    def __init__(self, scope: Scope, send: Send, headers_to_add: Headers) -> None:
        self.status = 0
        self.on_stream: Callable[[], None] = _nothing
        """Called when the response is a long-lived stream."""
        self._send = send
        self._headers_to_add = headers_to_add
        self._without_body = scope["method"] == "HEAD"

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = list(message.get("headers", ()))
            if (b"content-type", EVENT_STREAM.encode()) in given:
                self.on_stream()
            names = {name for name, _ in given}
            # The endpoint may override these, as static files do for caching.
            message["headers"] = [
                *given,
                *(
                    COMMON_HEADERS
                    if names.isdisjoint(_COMMON_NAMES)
                    else [header for header in COMMON_HEADERS if header[0] not in names]
                ),
                *self._headers_to_add,
            ]
        elif message["type"] == "http.response.body" and self._without_body:
            message = {**message, "body": b""}
        await self._send(message)


class _LimitedBody:
    """Receives the request body and enforces its size limit."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read = 0
        self._more = True

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            self._more = message.get("more_body", False)
            if self._read > BODY_BYTES:
                await self.refuse()
        return message

    async def refuse(self) -> NoReturn:
        """Read and discard the rest, within limits.

        Raises:
            PayloadTooLargeError: Always.
        """
        await self._discard()
        raise PayloadTooLargeError(MESSAGES["PAYLOAD_TOO_LARGE"])

    async def _discard(self) -> None:
        try:
            async with asyncio.timeout(_DISCARD_SECONDS):
                while self._more and self._read < _DISCARDED_BYTES:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        return
                    self._read += len(message.get("body", b""))
                    self._more = message.get("more_body", False)
        except TimeoutError:
            return


def _nothing() -> None:
    pass


def _is_too_large(headers: Mapping[bytes, str]) -> bool:
    content_length = headers.get(b"content-length", "")
    return content_length.isdecimal() and int(content_length[:20]) > BODY_BYTES
