"""Request bodies: forms in both encodings, with a size limit."""

from pathlib import Path
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request

from sandbox.redcap.api.params import Params, Upload
from sandbox.redcap.surveys.answering import Submission

MAX_BODY_BYTES = 256 * 1024 * 1024


class BadBodyError(Exception):
    """The body is not a valid form."""


async def params_of(request: Request) -> Params:
    """Read the parameters of an API call; raises :class:`BadBodyError`."""
    texts: list[tuple[str, str]] = []
    upload = None
    for name, value in await _items(request):
        if isinstance(value, Upload):
            upload = value if name == "file" else upload
        else:
            texts.append((name, value))
    return Params(texts, upload=upload)


async def submission_of(request: Request) -> Submission:
    """Read a survey submission; raises :class:`BadBodyError`."""
    items = await _items(request)
    return Submission(
        texts={name: value for name, value in items if isinstance(value, str)},
        uploads={name: value for name, value in items if isinstance(value, Upload)},
    )


async def _items(request: Request) -> list[tuple[str, str | Upload]]:
    """Read the names and values of a form, documents included."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise BadBodyError("The request is too large.")
    try:
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            return await _multipart(request)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise BadBodyError("The request is too large.")
        pairs = await run_in_threadpool(
            parse_qsl, body.decode("utf-8", "replace"), keep_blank_values=True
        )
        return list(pairs)
    except (MultiPartException, ClientDisconnect, ValueError) as exc:
        raise BadBodyError("The request is not a valid form.") from exc


async def _multipart(request: Request) -> list[tuple[str, str | Upload]]:
    items: list[tuple[str, str | Upload]] = []
    async with request.form(
        max_files=100, max_fields=100_000, max_part_size=MAX_BODY_BYTES
    ) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if value.filename:
                    mime = value.content_type or "application/octet-stream"
                    upload = Upload(Path(value.filename).name, mime, await value.read())
                    items.append((name, upload))
            else:
                items.append((name, value))
    return items
