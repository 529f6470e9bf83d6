"""Files on their way to a browser: pieces of a streaming rpc into one HTTP answer."""

import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

from amarre.mesh.v1.file_chunk_pb2 import FileChunk
from starlette.responses import Response, StreamingResponse

from mesh.chassis.errors import UpstreamError

_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}(; ?[a-zA-Z0-9=_.-]+)?")
_UNSAFE = re.compile(r"[^A-Za-z0-9._ -]")
_JSON = "application/json"


async def answer(call: Any, field: str) -> Response:
    """
    Return the answer for a call that streams pieces in *field*.

    The first piece is awaited, so that a refusal is still an ordinary error. A failure after it
    breaks the answer off, so that half a file never looks like a whole one.

    Raises:
        grpc.aio.AioRpcError: The call failed before its first piece.
        UpstreamError: The call ended without any piece.
    """
    responses = aiter(call)
    first = await anext(responses, None)
    if first is None:
        raise UpstreamError("The service sent an empty file.")
    head: FileChunk = getattr(first, field)
    media_type = head.media_type if _MEDIA_TYPE.fullmatch(head.media_type) else ""
    pieces = _pieces(call, responses, head, field)
    if media_type.partition(";")[0] == _JSON:
        return StreamingResponse(_wrapped(pieces), media_type=_JSON)
    headers = {"content-disposition": disposition(head.filename)} if head.filename else {}
    # No `media_type=`: Starlette would add a charset of its own to text.
    headers["content-type"] = media_type or "application/octet-stream"
    return StreamingResponse(pieces, headers=headers)


def disposition(filename: str) -> str:
    """
    Return the Content-Disposition that saves a file under *filename*.

    Source:
        RFC 6266, section 4.3 and appendix D.
    """
    name = filename.replace("\\", "/").rsplit("/", 1)[-1].strip(". ") or "file"
    plain = _UNSAFE.sub("_", name)
    if plain == name:
        return f'attachment; filename="{plain}"'
    safe = "".join(c for c in name if c.isprintable())
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(safe, safe='')}"


async def _pieces(
    call: Any, responses: AsyncIterator[Any], head: FileChunk, field: str
) -> AsyncIterator[bytes]:
    try:
        yield head.data
        async for response in responses:
            yield getattr(response, field).data
    finally:
        call.cancel()


async def _wrapped(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b'{"data":'
    async for piece in pieces:
        yield piece
    yield b',"error":null}'
