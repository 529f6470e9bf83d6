"""Error responses: a page for people, the JSON envelope for programs."""

import functools
from typing import Any

from google.protobuf.descriptor import Descriptor
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import OtherUserError
from gateway.pages import languages
from gateway.pages.site import Site
from gateway.rest.envelope import failure
from mesh.chassis.errors import MeshError, UnavailableError


class ErrorResponses:
    """Decides for every error of the gateway who reads the response."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._overloaded = functools.lru_cache(maxsize=64)(self._make_overloaded)

    def __call__(
        self, request: Request, error: MeshError, body: Descriptor | None = None
    ) -> Response:
        """Return the response for *error*; field paths use the JSON names of *body*."""
        if not is_navigation(request):
            return failure(error, body)
        context: dict[str, Any] = {}
        template = "error.html"
        if isinstance(error, OtherUserError):
            template, context = "sign_in/other_user.html", {"user": error.user}
        elif error.contract.name == "UNAUTHENTICATED":
            template, context = "sign_in/sign_in.html", {"email": ""}
        return self._site.render(request, template, error=error, **context)

    def overloaded(self, request: Request, error: UnavailableError) -> Response:
        """Return the response to a request that is not admitted, as cheaply as possible."""
        language = languages.choose(request) if is_navigation(request) else ""
        return self._overloaded(error.message, language)

    def _make_overloaded(self, message: str, language: str) -> Response:
        headers = [(b"sec-fetch-mode", b"navigate"), (b"accept-language", language.encode())]
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "query_string": b"",
            "headers": headers if language else [],
        }
        return self(Request(scope), UnavailableError(message))


def is_navigation(request: Request) -> bool:
    """Return whether a person reads the response.

    Source:
        Fetch Metadata Request Headers, section 2.2; for clients without, RFC 9110, section 12.5.1.
    """
    mode = request.headers.get("sec-fetch-mode")
    if mode is not None:
        return mode == "navigate"
    weights = languages.weights(request.headers.get("accept", ""))
    return weights.get("text/html", 0) > weights.get("application/json", 0)
