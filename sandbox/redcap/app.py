"""
The HTTP face: the API, survey pages, a page to look around, controls for tests.

Work on the database happens in threads, so the event loop never waits for it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from pathlib import Path
from urllib.parse import parse_qsl

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sandbox.redcap.answering import Submission
from sandbox.redcap.api import dispatch
from sandbox.redcap.api.operation import Answer
from sandbox.redcap.api.params import Params, Upload
from sandbox.redcap.errors import ApiError, UnsupportedError
from sandbox.redcap.faults import Calls, Faults
from sandbox.redcap.pages import overview, surveys
from sandbox.redcap.pages.surveys import Visit
from sandbox.redcap.store import Store

log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 256 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_WHOLE_BYTES = 1024 * 1024
"""Answers up to this size are sent whole, with their length."""


class Sandbox:
    """
    The application around one store.

    Args:
        store: The data.
        base_url: Where clients reach this server.
        stopping: Set when the server goes down; calls that hang on purpose end then.
    """

    def __init__(self, store: Store, *, base_url: str, stopping: asyncio.Event) -> None:
        self._store = store
        self._base_url = base_url
        self._stopping = stopping
        self._faults = Faults()
        self._calls = Calls()

    def app(self) -> Starlette:
        """The ASGI application."""
        static = StaticFiles(directory=Path(__file__).parent / "pages" / "static")
        return Starlette(
            routes=[
                Route("/", self._overview),
                Route("/api/", self._api, methods=["POST"]),
                Route("/api/", self._no_operation, methods=["GET", "PUT", "DELETE", "PATCH"]),
                Route("/api", self._no_operation, methods=["GET", "POST", "PUT", "DELETE"]),
                Route("/surveys/", self._survey, methods=["GET", "POST"]),
                Route("/_control/health", self._health),
                Route("/_control/faults", self._set_faults, methods=["PUT"]),
                Route("/_control/calls", self._get_calls, methods=["GET"]),
                Route("/_control/calls", self._clear_calls, methods=["DELETE"]),
                Mount("/static", static),
            ]
        )

    async def _api(self, request: Request) -> Response:
        started = time.perf_counter()
        try:
            params = await _params(request)
        except _BadBodyError as exc:
            return _response(dispatch.refusal(ApiError(str(exc)), Params([])))
        known = params.content if params.content in dispatch.CONTENTS else "unknown"
        action = params.action if len(params.action) <= 20 else "unknown"
        self._calls.add(known, action)
        fault = await self._fault(request)
        if isinstance(fault, Response):
            response, params = fault, params
        else:
            if fault == "ignore_filter" and params.content == "record":
                params = params.without("filterLogic")
            answer = await run_in_threadpool(
                dispatch.answer, params, self._store, base_url=self._base_url
            )
            response = await _sent(answer)
        log.info(
            "api call",
            content=known,
            action=action,
            status=response.status_code,
            duration_ms=round(1000 * (time.perf_counter() - started), 1),
        )
        return response

    async def _no_operation(self, request: Request) -> Response:
        return _response(dispatch.refusal(UnsupportedError(), Params([])))

    async def _survey(self, request: Request) -> Response:
        started = time.perf_counter()
        fault = await self._fault(request)
        if isinstance(fault, Response):
            return fault
        query = dict(request.query_params)
        code = query.get("s", query.get("sq", ""))
        visit = Visit(self._store, self._base_url, code, query)
        if "sq" in query:
            answer = await run_in_threadpool(surveys.show_queue, visit)
        elif request.method == "POST":
            try:
                submission = await _submission(request)
            except _BadBodyError as exc:
                return PlainTextResponse(str(exc), 400)
            answer = await run_in_threadpool(surveys.submit, visit, submission)
        else:
            answer = await run_in_threadpool(surveys.show, visit)
        log.info(
            "survey page",
            method=request.method,
            status=answer.status,
            duration_ms=round(1000 * (time.perf_counter() - started), 1),
        )
        return _response(answer)

    async def _overview(self, request: Request) -> Response:
        query = dict(request.query_params)
        return _response(
            await run_in_threadpool(overview.show, self._store, query, base_url=self._base_url)
        )

    async def _fault(self, request: Request) -> Response | str:
        """What goes wrong with this call, if anything: an answer, or a word."""
        faults = self._faults
        if faults.latency:
            await asyncio.sleep(faults.latency.total_seconds())
        match faults.draw():
            case "500":
                return PlainTextResponse("Internal Server Error", 500)
            case "html":
                return HTMLResponse("<!doctype html><title>REDCap</title><h1>Maintenance</h1>")
            case "empty":
                return Response(b"")
            case "hang":
                await self._until_gone(request)
                return Response(b"")
            case word:
                return word

    async def _until_gone(self, request: Request) -> None:
        """Wait until the client goes away or the server stops."""

        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        waits = [asyncio.ensure_future(gone()), asyncio.ensure_future(self._stopping.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _set_faults(self, request: Request) -> Response:
        try:
            self._faults = Faults.from_json(await request.json())
        except ValueError as exc:
            return JSONResponse({"error": str(exc)}, 400)
        log.info("faults set", **self._faults.to_json())
        return JSONResponse(self._faults.to_json())

    async def _get_calls(self, request: Request) -> Response:
        return JSONResponse(self._calls.to_json())

    async def _clear_calls(self, request: Request) -> Response:
        self._calls.clear()
        return Response(status_code=204)


class _BadBodyError(Exception):
    """The body cannot be read as a form."""


async def _items(request: Request) -> list[tuple[str, str | Upload]]:
    """Names and values of the form that was sent, documents included."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise _BadBodyError("The request is too large.")
    try:
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            return await _multipart(request)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise _BadBodyError("The request is too large.")
        pairs = await run_in_threadpool(
            parse_qsl, body.decode("utf-8", "replace"), keep_blank_values=True
        )
        return list(pairs)
    except (MultiPartException, ClientDisconnect, ValueError) as exc:
        raise _BadBodyError("The request could not be read as a form.") from exc


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


async def _params(request: Request) -> Params:
    texts: list[tuple[str, str]] = []
    upload = None
    for name, value in await _items(request):
        if isinstance(value, Upload):
            upload = value if name == "file" else upload
        else:
            texts.append((name, value))
    return Params(texts, upload=upload)


async def _submission(request: Request) -> Submission:
    items = await _items(request)
    return Submission(
        texts={name: value for name, value in items if isinstance(value, str)},
        uploads={name: value for name, value in items if isinstance(value, Upload)},
    )


def _response(answer: Answer) -> Response:
    body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
    return Response(body, answer.status, dict(answer.headers), answer.media_type)


async def _sent(answer: Answer) -> Response:
    """A response that holds short answers whole and passes long ones on as they come."""
    if isinstance(answer.body, bytes):
        return _response(answer)
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
        # A client that left early must not keep a connection to the database.
        close = getattr(source, "close", None)
        if close is not None:
            close()
