"""File downloads: a streaming rpc becomes one HTTP response."""

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


async def respond(call: Any, field: str) -> Response:
    """Return the response for a call that streams chunks in *field*.

    The first chunk is awaited, so an early error is an ordinary error response. A later failure
    cuts the response off, so a partial file never looks complete.

    Raises:
        grpc.aio.AioRpcError: The call failed before its first chunk.
        UpstreamError: The call ended without any chunk.
    """
    responses = aiter(call)
    first = await anext(responses, None)
    if first is None:
        raise UpstreamError("The service returned an empty file.")
    head: FileChunk = getattr(first, field)
    media_type = head.media_type if _MEDIA_TYPE.fullmatch(head.media_type) else ""
    chunks = _chunks(call, responses, head, field)
    if media_type.partition(";")[0] == _JSON:
        return StreamingResponse(_wrapped(chunks), media_type=_JSON)
    headers = {"content-disposition": disposition(head.filename)} if head.filename else {}
    # Not `media_type=`: Starlette would add a charset to text types.
    headers["content-type"] = media_type or "application/octet-stream"
    return StreamingResponse(chunks, headers=headers)


def disposition(filename: str) -> str:
    """Return the Content-Disposition header for *filename*.

    Source:
        RFC 6266, section 4.3 and appendix D.
    """
    name = filename.replace("\\", "/").rsplit("/", 1)[-1].strip(". ") or "file"
    plain = _UNSAFE.sub("_", name)
    if plain == name:
        return f'attachment; filename="{plain}"'
    safe = "".join(c for c in name if c.isprintable())
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(safe, safe='')}"


async def _chunks(
    call: Any, responses: AsyncIterator[Any], head: FileChunk, field: str
) -> AsyncIterator[bytes]:
    try:
        yield head.data
        async for response in responses:
            yield getattr(response, field).data
    finally:
        call.cancel()


async def _wrapped(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b'{"data":'
    async for chunk in chunks:
        yield chunk
    yield b',"error":null}'
