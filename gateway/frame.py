"""
What frames every answer, pages and errors included: ids, security headers, limits, the last word.
"""

import asyncio
import re
import secrets
import time

import structlog
from opentelemetry.trace import Span, SpanKind
from prometheus_client import Gauge, Histogram
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.envelope import failure
from gateway.errors import PayloadTooLargeError
from mesh.chassis import call, telemetry
from mesh.chassis.errors import MeshError, UnavailableError
from mesh.chassis.telemetry import names, tracing

log = structlog.get_logger("access")

BODY_BYTES = 64 * 1024
"""The largest body that is read."""
REQUESTS_AT_ONCE = 1000
"""More are refused, before the event loop suffers."""
PROBE_PATH = "/healthz"
"""Asked for every few seconds; nobody looks for it in traces."""
SLOW_SECONDS = 1.0
"""Longer requests are told as slow; streams that stay open never are."""
_DISCARDED_BYTES = 16 * 1024 * 1024
"""Of a body that is too large, what is read and thrown away, so that its sender hears why."""
_DISCARD_SECONDS = 5.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
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
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

HTTP_SECONDS = Histogram(
    "amarre_http_server_duration_seconds",
    "How long requests took at the gateway.",
    ["method", "route", "status"],
    buckets=telemetry.LATENCY_BUCKETS,
)
HTTP_IN_FLIGHT = Gauge("amarre_http_server_in_flight", "Requests being served.")


class Frame:
    """The outermost application: whatever happens inside, the answer is whole and safe."""

    def __init__(self, app: ASGIApp, *, behind_envoy: bool, hsts_seconds: int) -> None:
        self._app = app
        self._behind_envoy = behind_envoy
        self._hsts = f"max-age={hsts_seconds}"
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        call.traceparent.set(_continued(headers.get(b"traceparent", "")))
        span: Span | None = None
        if scope["path"] != PROBE_PATH:
            facts = {names.HTTP_METHOD: scope["method"][:16]}
            span = tracing.start(scope["method"][:16], SpanKind.SERVER, facts)
            tracing.enter(span)
        context = call.traceparent.get()
        answer = _Answer(scope, send, self._framing(scope, headers, context))
        started = time.perf_counter()
        self._in_flight += 1
        HTTP_IN_FLIGHT.inc()
        try:
            await self._serve(scope, headers, receive, answer)
        finally:
            self._in_flight -= 1
            HTTP_IN_FLIGHT.dec()
            _tell(scope, answer, time.perf_counter() - started, span)

    async def _serve(
        self, scope: Scope, headers: dict[bytes, str], receive: Receive, answer: "_Answer"
    ) -> None:
        body = _Body(receive)
        try:
            if self._in_flight > REQUESTS_AT_ONCE:
                raise UnavailableError("The gateway has as many requests in flight as it may.")
            if _is_too_large(headers.get(b"content-length", "")):
                raise PayloadTooLargeError(f"The body may have {BODY_BYTES} bytes at most.")
            await self._app(scope, body, answer)
        except MeshError as error:
            if isinstance(error, PayloadTooLargeError):
                await body.discard()
            await self._fail(scope, receive, answer, error)
        except Exception:
            log.exception("request failed", path=scope["path"][:200])
            await self._fail(
                scope,
                receive,
                answer,
                MeshError("Something unexpected happened; the log has the details."),
            )

    async def _fail(
        self, scope: Scope, receive: Receive, answer: "_Answer", error: MeshError
    ) -> None:
        # Once an answer has begun it can only be broken off: the server closes the connection
        # when an application returns without having finished.
        if answer.status == 0:
            await failure(error)(scope, receive, answer)

    def _framing(self, scope: Scope, headers: dict[bytes, str], context: str) -> dict[str, str]:
        request_id = headers.get(b"x-request-id", "") if self._behind_envoy else ""
        framing = {
            "x-request-id": request_id
            if _REQUEST_ID.fullmatch(request_id)
            else secrets.token_hex(16),
            "traceresponse": context,
        }
        forwarded = headers.get(b"x-forwarded-proto", "") if self._behind_envoy else ""
        if (forwarded or scope["scheme"]) == "https":
            framing["strict-transport-security"] = self._hsts
        return framing


class _Answer:
    """Sends, adding the frame; a HEAD request gets no body."""

    def __init__(self, scope: Scope, send: Send, framing: dict[str, str]) -> None:
        self.status = 0
        self.stays_open = False
        self._send = send
        self._framing = framing
        self._without_body = scope["method"] == "HEAD"

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.update(self._framing)
            self.stays_open = headers.get("content-type", "").startswith("text/event-stream")
            message["headers"] = headers.raw
        elif message["type"] == "http.response.body" and self._without_body:
            message = {**message, "body": b""}
        await self._send(message)


class _Body:
    """Receives, counting the bytes of the body."""

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
                raise PayloadTooLargeError(f"The body may have {BODY_BYTES} bytes at most.")
        return message

    async def discard(self) -> None:
        """Read what is left, within bounds."""
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


def _continued(traceparent: str) -> str:
    """
    Return the trace context of this request: what came in, or the beginning of a new trace.

    Source:
        W3C Trace Context, section 3.2.
    """
    if _TRACEPARENT.fullmatch(traceparent):
        return traceparent
    return telemetry.new_traceparent()


def _is_too_large(content_length: str) -> bool:
    return content_length.isdecimal() and int(content_length[:20]) > BODY_BYTES


def _tell(scope: Scope, answer: _Answer, seconds: float, span: Span | None) -> None:
    route = scope.get("route")
    # Paths nobody serves are counted together: they are chosen by strangers.
    path = getattr(route, "path", None) or "other"
    method, status = scope["method"][:16], answer.status
    HTTP_SECONDS.labels(method if status != 405 else "other", path, status).observe(
        seconds, telemetry.exemplar()
    )
    kind = _kind(status, seconds, stays_open=answer.stays_open)
    facts = {"status": status, "duration_ms": round(seconds * 1000, 2), "kind": kind}
    log.info("request", method=method, route=path, **facts)
    attributes = {names.HTTP_METHOD: method, names.HTTP_ROUTE: path, names.HTTP_STATUS: status}
    name, error = f"{method} {path}", str(status) if kind == names.KIND_ERROR else ""
    if span is not None:
        span.update_name(name)
        tracing.end(span, attributes, error=error)
    elif kind in {names.KIND_ERROR, names.KIND_SLOW}:
        tracing.tell_late(name, attributes, seconds=seconds, error=error)


def _kind(status: int, seconds: float, *, stays_open: bool) -> str:
    if status in {401, 403, 429}:
        return names.KIND_SECURITY
    if status >= 500:
        return names.KIND_ERROR
    return names.KIND_SLOW if seconds > SLOW_SECONDS and not stays_open else names.KIND_ACCESS
