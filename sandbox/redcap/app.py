"""HTTP application: API, survey pages, overview page and control endpoints.

Database work runs in threads, so that it never blocks the event loop.
"""

import asyncio
import time
from pathlib import Path

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sandbox.redcap.api import dispatch
from sandbox.redcap.api.params import Params
from sandbox.redcap.errors import ApiError, UnsupportedError
from sandbox.redcap.pages import overview, surveys
from sandbox.redcap.pages.surveys import Visit
from sandbox.redcap.store import Store
from sandbox.redcap.transport.fault_injection import Calls, Faults
from sandbox.redcap.transport.request_body import BadBodyError, params_of, submission_of
from sandbox.redcap.transport.streaming import half, sent, whole

log = structlog.get_logger(__name__)


class Sandbox:
    """The application around one store.

    Args:
        store: The data.
        base_url: Where clients reach this server.
        stopping: Set when the server shuts down; ends calls that hang on purpose.
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
            params = await params_of(request)
        except BadBodyError as exc:
            return whole(dispatch.error_answer(ApiError(str(exc)), Params([])))
        known = params.content if params.content in dispatch.CONTENTS else "unknown"
        action = params.action if len(params.action) <= 20 else "unknown"
        self._calls.add(known, action)
        fault = await self._fault(request)
        if isinstance(fault, Response):
            response = fault
        else:
            if fault == "ignore_filter" and params.content == "record":
                params = params.without("filterLogic")
            answer = await run_in_threadpool(
                dispatch.answer, params, self._store, base_url=self._base_url
            )
            if fault == "partial":
                response = await run_in_threadpool(half, answer)
            else:
                response = await sent(answer)
        log.info(
            "api call",
            content=known,
            action=action,
            status=response.status_code,
            duration_ms=round(1000 * (time.perf_counter() - started), 1),
        )
        return response

    async def _no_operation(self, request: Request) -> Response:
        return whole(dispatch.error_answer(UnsupportedError(), Params([])))

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
                submission = await submission_of(request)
            except BadBodyError as exc:
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
        return whole(answer)

    async def _overview(self, request: Request) -> Response:
        query = dict(request.query_params)
        return whole(
            await run_in_threadpool(overview.show, self._store, query, base_url=self._base_url)
        )

    async def _fault(self, request: Request) -> Response | str:
        """Return the injected fault of this call, if any: a response or a mode."""
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
        """Wait until the client disconnects or the server stops."""

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
