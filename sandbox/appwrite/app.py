"""The web application: response headers, injected faults, routes and control endpoints."""

import asyncio
from dataclasses import asdict, replace
from datetime import timedelta

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.appwrite import params
from sandbox.appwrite.access import Access
from sandbox.appwrite.account import Account
from sandbox.appwrite.errors import AppwriteError
from sandbox.appwrite.limits import Limits, RateLimitedError
from sandbox.appwrite.mailer import Mailer
from sandbox.appwrite.state import Project, Switches
from sandbox.appwrite.users import Users

SCOPES = ("sessions.write", "users.read", "users.write")
SERVED_FORMAT = (1, 9)
MODES = ("none", "drop", "html", "500", "503")


def create(
    project_id: str,
    key: str,
    *,
    scopes: tuple[str, ...] = SCOPES,
    smtp: tuple[str, int] | None = None,
    platforms: tuple[str, ...] = (),
) -> Starlette:
    """Return an application that serves one project with one API *key*."""
    project, mailer = Project(project_id), Mailer(smtp)
    access, limits = Access(project, key, scopes), Limits(project)
    account = Account(project, access, limits, mailer, platforms=platforms)
    return Starlette(
        routes=[
            Route("/v1/ping", _ping),
            *account.routes(),
            *Users(project, access).routes(),
            *_control(project, mailer),
        ],
        middleware=[Middleware(_Behaviour, project=project)],
        exception_handlers={AppwriteError: _refuse, HTTPException: _not_found},
    )


def _control(project: Project, mailer: Mailer) -> list[Route]:
    async def health(_: Request) -> Response:
        return JSONResponse({"status": "healthy", "users": len(project.users)})

    async def switches(request: Request) -> Response:
        changes = await params.body(request)
        if changes.get("mode", "none") not in MODES or set(changes) - set(asdict(Switches())):
            return JSONResponse({"error": f"use {asdict(Switches())}, mode one of {MODES}"}, 400)
        project.switches = replace(Switches(), **changes)  # type: ignore[arg-type]
        return JSONResponse(asdict(project.switches))

    async def clock(request: Request) -> Response:
        seconds = (await params.body(request)).get("advance_seconds", 0)
        if not isinstance(seconds, int | float):
            return JSONResponse({"error": "advance_seconds must be a number"}, 400)
        project.ahead += timedelta(seconds=seconds)
        return JSONResponse({"now": project.now().isoformat()})

    async def last_link(_: Request) -> Response:
        return JSONResponse({"link": mailer.last_link})

    return [
        Route("/_control/health", health),
        Route("/_control/switches", switches, methods=["PUT"]),
        Route("/_control/clock", clock, methods=["POST"]),
        Route("/_control/last-link", last_link),
    ]


async def _ping(_: Request) -> Response:
    return PlainTextResponse("Pong!")


async def _refuse(_: Request, error: Exception) -> Response:
    if not isinstance(error, AppwriteError):
        raise error
    response = error.response()
    if isinstance(error, RateLimitedError):
        response.headers.update(error.headers)
    return response


async def _not_found(_: Request, __: Exception) -> Response:
    return AppwriteError("general_route_not_found").response()


class _Behaviour:
    """Adds the headers of every response and injects the active fault."""

    def __init__(self, app: ASGIApp, project: Project) -> None:
        self._app = app
        self._project = project

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_control"):
            await self._app(scope, receive, send)
            return
        switches = self._project.switches
        await asyncio.sleep(switches.latency_ms / 1000)
        headers = dict(scope["headers"])
        more = [(b"server", b"Appwrite"), (b"x-content-type-options", b"nosniff")]
        fallback = b"true" if b"x-fallback-cookies" in headers else b"false"
        more.append((b"x-debug-fallback", fallback))
        if _is_newer(headers.get(b"x-appwrite-response-format", b"").decode("latin-1")):
            more.append((b"x-appwrite-warning", b"The response format is newer than the server."))

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *more]
            await send(message)

        match switches.mode:
            case "drop":
                # Announces a body that never follows, so that the server closes the connection.
                start = {"type": "http.response.start", "status": 200}
                await send({**start, "headers": [(b"content-length", b"10")]})
            case "html":
                page = Response("<h1>Bad Gateway</h1>", 502, media_type="text/html")
                await page(scope, receive, send)
            case "500":
                await AppwriteError("general_unknown").response()(scope, receive, with_headers)
            case "503":
                page = Response("upstream connect error", 503, media_type="text/plain")
                await page(scope, receive, send)
            case _:
                await self._app(scope, receive, with_headers)


def _is_newer(asked: str) -> bool:
    try:
        numbers = tuple(int(part) for part in asked.split(".")[:2])
    except ValueError:
        return False
    return numbers > SERVED_FORMAT
