"""
What frames every answer, pages and errors included: ids, security headers, limits, the last word.
"""

import asyncio
import re
import secrets
from collections.abc import Callable

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.envelope import failure
from gateway.errors import PayloadTooLargeError
from gateway.events import EVENT_STREAM
from gateway.observation import Observation
from mesh.chassis import call
from mesh.chassis.errors import MeshError, UnavailableError

log = structlog.get_logger("gateway")

BODY_BYTES = 64 * 1024
"""The largest body that is read."""
REQUESTS_AT_ONCE = 1000
"""More are refused, before the event loop suffers. Event streams, which last, do not count."""
_DISCARDED_BYTES = 16 * 1024 * 1024
"""Of a body that is too large, what is read and thrown away, so that its sender hears why."""
_DISCARD_SECONDS = 1.0
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
_HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (
        b"permissions-policy",
        b"camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
Headers = list[tuple[bytes, bytes]]


class Frame:
    """The outermost application: whatever happens inside, the answer is whole and safe."""

    def __init__(self, app: ASGIApp, *, behind_envoy: bool, hsts_seconds: int) -> None:
        self._app = app
        self._behind_envoy = behind_envoy
        self._hsts = f"max-age={hsts_seconds}".encode()
        self._in_flight: set[_Answer] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        call.to_canary.set(headers.get(call.CANARY_HEADER.encode()) == "1")
        observed = Observation(scope, headers.get(b"traceparent", ""))
        framing = self._framing(scope, headers, observed.traceresponse)
        answer = _Answer(scope, send, framing)
        self._in_flight.add(answer)
        answer.when_lasting = lambda: self._in_flight.discard(answer)
        try:
            await self._serve(scope, headers, receive, answer)
        finally:
            self._in_flight.discard(answer)
            observed.end(answer.status)

    async def _serve(
        self, scope: Scope, headers: dict[bytes, str], receive: Receive, answer: "_Answer"
    ) -> None:
        body = _Body(receive)
        try:
            if len(self._in_flight) > REQUESTS_AT_ONCE:
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

    def _framing(self, scope: Scope, headers: dict[bytes, str], trace: str) -> Headers:
        request_id = headers.get(b"x-request-id", "") if self._behind_envoy else ""
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = secrets.token_hex(16)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        framing = [(b"x-request-id", request_id.encode()), (b"traceresponse", trace.encode())]
        forwarded = headers.get(b"x-forwarded-proto", "") if self._behind_envoy else ""
        if (forwarded or scope["scheme"]) == "https":
            framing.append((b"strict-transport-security", self._hsts))
        return framing


class _Answer:
    """Sends, adding the frame; a HEAD request gets no body."""

    def __init__(self, scope: Scope, send: Send, framing: Headers) -> None:
        self.status = 0
        self.when_lasting: Callable[[], None] = _nothing
        """Called when the answer turns out to be one that stays open."""
        self._send = send
        self._framing = framing
        self._without_body = scope["method"] == "HEAD"

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = list(message.get("headers", ()))
            if (b"content-type", EVENT_STREAM.encode()) in given:
                self.when_lasting()
            names = {name for name, _ in given}
            # Whoever answers may say otherwise, as static files do of caching.
            given += [header for header in _HEADERS if header[0] not in names]
            message["headers"] = given + self._framing
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


def _nothing() -> None:
    pass


def _is_too_large(content_length: str) -> bool:
    return content_length.isdecimal() and int(content_length[:20]) > BODY_BYTES
