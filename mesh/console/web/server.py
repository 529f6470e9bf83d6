"""The web application: access control, security headers, static files."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request, cookie_parser
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mesh.console.context import Context
from mesh.console.incidents import runbooks
from mesh.console.web import control_actions, direct_calls
from mesh.console.web.api import Api
from mesh.console.web.authentication import BEARER, COOKIE, SESSION, Access, admit
from mesh.console.web.errors import ERRORS, error
from mesh.console.web.parameters import Query
from mesh.contract.wire import HEALTH_PATH

FILES = Path(__file__).parent / "static"
PAGES = (
    "/",
    "/incidents/{id}",
    "/graph",
    "/traces",
    "/traces/{trace_id}",
    "/compare",
    "/logs",
    "/metrics",
    "/processes",
    "/call",
    "/mesh",
)
OPEN_TO_ALL = (HEALTH_PATH, "/open", "/static/")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}

Endpoint = Callable[[Request], Awaitable[Response]]


def app(context: Context, access: Access) -> Starlette:
    """Return the web application."""
    return Starlette(
        routes=[
            *Api(context).routes(),
            *control_actions.routes(context),
            *direct_calls.routes(context),
            Route("/api/codes", _codes(access), methods=["POST"]),
            Route("/open", _open(access)),
            Route("/sign-out", _sign_out, methods=["POST"]),
            Route(HEALTH_PATH, _healthz),
            *(Route(path, _page) for path in PAGES),
            Route(runbooks.PATH + "/{name}", _runbook),
            Mount("/static", GZipMiddleware(StaticFiles(directory=FILES))),
        ],
        middleware=[Middleware(_Guard, access=access)],
        exception_handlers={HTTPException: _refused, 500: _failed}
        | dict.fromkeys(ERRORS, _invalid),
    )


class _Guard:
    """Authenticates operators, and sets security headers on every response."""

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        who = self._who(scope)
        if who is None and not scope["path"].startswith(OPEN_TO_ALL):
            inner: ASGIApp = _unauthenticated(scope["path"])
        elif who and not _same_origin(scope):
            # With the cookie, only our own pages may change state.
            inner = error(403, "csrf_failed", "Only the console's own pages may send this request.")
        else:
            admit(scope, who or BEARER)
            inner = self._app
        await inner(scope, receive, with_headers)

    def _who(self, scope: Scope) -> str | None:
        """Return the operator; empty for the bearer of the token, None if unauthenticated."""
        headers = Headers(scope=scope)
        if self._access.is_token(headers.get("authorization", "")):
            return ""
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return self._access.session(cookie) or None


def _same_origin(scope: Scope) -> bool:
    """Return whether a request is safe, or comes from our own pages."""
    if scope["method"] in {"GET", "HEAD"}:
        return True
    headers = Headers(scope=scope)
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    return headers.get("origin", "") == f"{scope['scheme']}://{headers.get('host', '')}"


def _unauthenticated(path: str) -> Response:
    if path.startswith("/api/"):
        answer = error(
            401, "unauthenticated", "Send the console's token: Authorization: Bearer TOKEN."
        )
        answer.headers["www-authenticate"] = 'Bearer realm="console"'
        return answer
    return _notice(
        401,
        "Operators only",
        "Open the console with the one-time link that <code>amarre up</code> prints; "
        "<code>amarre console</code> prints a new one.",
    )


def _notice(status: int, title: str, text: str, *, refresh: bool = False) -> HTMLResponse:
    """Return a minimal page; *text* is trusted HTML."""
    meta = '<meta http-equiv="refresh" content="0;url=/">' if refresh else ""
    return HTMLResponse(
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{meta}<title>{title} · AMARRE console</title>"
        '<link rel="icon" href="/static/icon.svg" type="image/svg+xml">'
        '<link rel="stylesheet" '
        f'href="/static/console.css"><main class="notice"><h1>{title}</h1><p>{text}</p></main>',
        status,
    )


def _codes(access: Access) -> Endpoint:
    async def codes(request: Request) -> Response:
        """Issue a sign-in code; only for the bearer of the token."""
        if not access.is_token(request.headers.get("authorization", "")):
            return error(
                403, "permission_denied", "Only the bearer of the token can create sign-in links."
            )
        code = access.new_code(Query(request.query_params, ["who"]).text("who"))
        return JSONResponse({"code": code, "path": f"/open?code={code}"})

    return codes


def _open(access: Access) -> Endpoint:
    async def enter(request: Request) -> Response:
        """Redeem a code. The page then redirects itself, since the cookie is SameSite=Strict."""
        cookie = access.use_code(request.query_params.get("code", ""))
        if not cookie:
            return _notice(
                401,
                "This link is invalid",
                "It was used already, or is older than 10 minutes. "
                "<code>amarre console</code> prints a new one.",
            )
        answer = _notice(200, "Signed in", '<a href="/">Go to the console</a>', refresh=True)
        answer.set_cookie(
            COOKIE,
            cookie,
            max_age=int(SESSION.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    return enter


async def _sign_out(request: Request) -> Response:
    answer = _notice(200, "Signed out", "<code>amarre console</code> prints a new link.")
    answer.delete_cookie(COOKIE)
    return answer


async def _healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _page(request: Request) -> Response:
    return FileResponse(FILES / "console.html")


async def _runbook(request: Request) -> Response:
    """Show a runbook within the console's page layout."""
    found = runbooks.whole((FILES / "console.html").read_text(), request.path_params["name"])
    if found is None:
        raise HTTPException(404)
    return HTMLResponse(found)


async def _refused(request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    if request.url.path.startswith("/api/"):
        code = {404: "not_found", 405: "method_not_allowed"}.get(status, "invalid_request")
        if status == 405:
            allowed = (exc.headers or {}).get("Allow", "") if isinstance(exc, HTTPException) else ""
            return error(status, code, f"This endpoint accepts only {allowed}.")
        return error(status, code, "There is no such endpoint.")
    return _notice(status, "Page not found", '<a href="/">Go to the console</a>')


async def _invalid(request: Request, exc: Exception) -> Response:
    status, code = ERRORS[type(exc)]
    return error(status, code, str(exc))


async def _failed(request: Request, exc: Exception) -> Response:
    return error(500, "internal", "An unexpected error occurred; the log has the details.")
