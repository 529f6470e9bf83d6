"""HTTP responses: short bodies are sent whole, long ones streamed."""

from collections.abc import AsyncIterator, Iterator
from itertools import chain

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from sandbox.redcap.api.operation import Answer

_CHUNK_BYTES = 64 * 1024
_WHOLE_BYTES = 1024 * 1024
"""Bodies up to this size are sent whole, with their length."""


def whole(answer: Answer) -> Response:
    """A response with its whole body."""
    body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
    return Response(body, answer.status, dict(answer.headers), answer.media_type)


def half(answer: Answer) -> Response:
    """A response with the first half of its body, and the length of that."""
    response = whole(answer)
    body = bytes(response.body)
    return Response(body[: len(body) // 2], answer.status, dict(answer.headers), answer.media_type)


async def sent(answer: Answer) -> Response:
    """A response that sends short bodies whole and streams long ones."""
    if isinstance(answer.body, bytes):
        return whole(answer)
    chunks = _chunks(answer.body)
    head, ended = await run_in_threadpool(_head, chunks)
    if ended:
        return Response(b"".join(head), answer.status, dict(answer.headers), answer.media_type)
    rest = _in_threads(chain(head, chunks), answer.body)
    return StreamingResponse(rest, answer.status, dict(answer.headers), answer.media_type)


def _chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        if len(buffer) >= _CHUNK_BYTES:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer)


def _head(chunks: Iterator[bytes]) -> tuple[list[bytes], bool]:
    head: list[bytes] = []
    size = 0
    for chunk in chunks:
        head.append(chunk)
        size += len(chunk)
        if size >= _WHOLE_BYTES:
            return head, False
    return head, True


async def _in_threads(chunks: Iterator[bytes], source: Iterator[bytes]) -> AsyncIterator[bytes]:
    try:
        while (chunk := await run_in_threadpool(next, chunks, None)) is not None:
            yield chunk
    finally:
        # A client that disconnects early must not hold a database connection.
        close = getattr(source, "close", None)
        if close is not None:
            close()
