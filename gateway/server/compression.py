"""Response compression by content negotiation, with validators that differ per encoding."""

import functools
import re
from collections.abc import Iterable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import GZipResponder, IdentityResponder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MINIMUM_BYTES = 1024
_LEVEL = 4
_NEGOTIATED = frozenset({206, 304})
"""Statuses whose full response would have been negotiated too."""
_QVALUE = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Compression:
    """Compresses responses of *app* with gzip for clients that accept it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            send = _Response(scope, send)
        await self._app(scope, receive, send)


class _Response:
    """Sends one response; Starlette's responder decides and compresses, unless it is small."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._forward: Send | None = None

    async def __call__(self, message: Message) -> None:
        if self._forward is None:  # The start of the response.
            # The responder would leave a small response alone too, but takes longer to find out.
            self._forward = self._plainly if _is_small(message["headers"]) else self._responder()
        await self._forward(message)

    def _responder(self) -> Send:
        headers = self._scope["headers"]
        accepted = [v.decode("latin-1") for k, v in headers if k == b"accept-encoding"]
        responder = (
            GZipResponder(_nothing, _MINIMUM_BYTES, compresslevel=_LEVEL)
            if accepts_gzip(",".join(accepted))
            else IdentityResponder(_nothing, _MINIMUM_BYTES)
        )
        responder.send = self._plainly
        return responder.send_with_compression

    async def _plainly(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _needs_marks(message):
            _mark(MutableHeaders(raw=message["headers"]), message["status"])
        await self._send(message)


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Placeholder application for responders, which require one; they are not used to call it."""


def _is_small(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the *headers* of a response declare a body that is too small to compress."""
    return any(name == b"content-length" and int(n) < _MINIMUM_BYTES for name, n in headers)


def _needs_marks(start: Message) -> bool:
    return start["status"] in _NEGOTIATED or any(
        name == b"content-encoding" for name, _ in start["headers"]
    )


@functools.lru_cache(maxsize=256)
def accepts_gzip(accept_encoding: str) -> bool:
    """
    Return whether the client accepts gzip at least as much as no encoding.

    Malformed members are ignored.

    Source:
        RFC 9110, sections 8.4.1.3 and 12.5.3.
    """
    weights = _weights(accept_encoding)
    anything = weights.get("*", 0)
    gzip = weights.get("gzip", weights.get("x-gzip", anything))
    return gzip > 0 and gzip >= weights.get("identity", 0)


def _weights(accept_encoding: str) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for member in accept_encoding.split(","):
        coding, _, parameter = member.strip().partition(";")
        name, _, value = parameter.strip().partition("=")
        weight = 1.0 if not parameter.strip() else None
        if name.strip().lower() == "q" and _QVALUE.fullmatch(value.strip()):
            weight = float(value)
        coding = coding.strip().lower()
        if weight is not None and _TOKEN.fullmatch(coding):
            found[coding] = max(weight, found.get(coding, 0.0))
    return found


def _mark(headers: MutableHeaders, status: int) -> None:
    """
    Make the entity tag of a compressed response weak, and add Vary where it was negotiated.

    Source:
        RFC 9110, sections 8.8.3.3 and 15.4.5.
    """
    if _is_compressed(headers):
        tag = headers.get("etag", "")
        if tag.startswith('"'):
            headers["etag"] = f"W/{tag}"
    if status in _NEGOTIATED:
        headers.add_vary_header("Accept-Encoding")


def _is_compressed(headers: Headers) -> bool:
    return headers.get("content-encoding") == "gzip"
