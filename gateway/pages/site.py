"""Template rendering, and static files with content-based versions."""

import functools
import hashlib
import re
from datetime import UTC
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from gateway.pages import languages
from gateway.pages.languages import LANGUAGES, Translator
from gateway.rest.envelope import headers_of
from gateway.server.request_telemetry import REQUEST_ID
from mesh.chassis.errors import MeshError

_FOLDER = Path(__file__).parent
_RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{0,15})", re.ASCII | re.IGNORECASE)
_IMMUTABLE = "public, max-age=31536000, immutable"


class Static(StaticFiles):
    """Static files; a request with the current version may be cached for ever."""

    def __init__(self) -> None:
        super().__init__(directory=_FOLDER / "static")

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the file at *path*."""
        response = await super().get_response(path, scope)
        if not _can_be_partial(scope, response):
            scope["headers"] = [header for header in scope["headers"] if header[0] != b"range"]
        # During a rolling update the page may come from one version and this file from the
        # other; browsers must not cache it under the wrong address.
        same = response.status_code == HTTPStatus.OK and (
            f"/static/{path}?{scope['query_string'].decode('latin-1')}" == static_url(path)
        )
        response.headers["cache-control"] = _IMMUTABLE if same else "no-cache"
        return response


class Site:
    """Renders templates."""

    def __init__(self) -> None:
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals["static"] = static_url
        self._templates.globals["utc"] = UTC

    def render(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        error: MeshError | None = None,
        **context: Any,
    ) -> HTMLResponse:
        """Return the page made from *template* in the visitor's language.

        An *error* decides the status, and gives the response its headers.
        """
        language = languages.choose(request)
        context.setdefault("user", None)
        context.setdefault("unknown", False)
        body = self._templates.get_template(template).render(
            t=Translator(language),
            language=language,
            languages=[(other, _same_page(request, other)) for other in LANGUAGES],
            error=error,
            request_id=request.scope.get(REQUEST_ID, ""),
            **context,
        )
        response = HTMLResponse(
            body,
            error.contract.http if error else status,
            {
                "content-language": language,
                "vary": "Accept-Language, Cookie",
                **(headers_of(error) if error else {}),
            },
        )
        if request.query_params.get("lang") == language:
            response.set_cookie(
                languages.COOKIE,
                language,
                max_age=languages.COOKIE_SECONDS,
                httponly=True,
                samesite="lax",
            )
        return response


def _can_be_partial(scope: Scope, response: Response) -> bool:
    """Return whether *response* may be a part; any other Range is ignored.

    Source:
        RFC 9110, sections 14.1.1, 14.2 and 15.5.17.
    """
    found = _RANGE.fullmatch(Headers(scope=scope).get("range", ""))
    if found is None or scope["method"] != "GET":
        return False
    first, last = int(found[1]), int(found[2] or found[1])
    return first <= last and first < int(response.headers.get("content-length", 0))


def _same_page(request: Request, language: str) -> str:
    """Return the URL of this page in another language, without any secret."""
    # Not `request.url`, which depends on the Host header.
    path = request.scope["path"]
    if request.method not in {"GET", "HEAD"} or path.startswith(("/login", "/api/v1/")):
        return f"/?lang={language}"
    kept = {k: v for k, v in request.query_params.items() if k == "tab"}
    query = "&".join(f"{k}={v}" for k, v in kept.items() if v.isalpha())
    return f"{quote(path)}?{query}&lang={language}".replace("?&", "?")


@functools.cache
def static_url(name: str) -> str:
    """Return the URL of a static file, with a version derived from its content."""
    digest = hashlib.sha256((_FOLDER / "static" / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"
