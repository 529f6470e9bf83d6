"""Dispatch of one page: HTTP methods, the same-origin check of forms, and errors."""

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.errors import MethodNotAllowedError, UnreadableInputError
from gateway.rest.binding import require_identity
from gateway.rest.envelope import as_mesh_error
from gateway.rest.transcode import Api
from gateway.server.admission import received_at
from gateway.sessions import same_origin
from mesh.chassis.errors import DeadlineExceededError

Handler = Callable[[Request], Awaitable[Response]]
_FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 32
PAGE_SECONDS = 17.0
"""Deadline of a page, from the first byte at the edge; above those of creating a request, and of
listing the requests if that fails."""


class Page:
    """Serves GET and POST at one path; exceptions become error pages."""

    def __init__(
        self, api: Api, *, get: Handler | None = None, post: Handler | None = None
    ) -> None:
        self._api = api
        self._handlers = {
            method: handler
            for method, handler in (("GET", get), ("HEAD", get), ("POST", post))
            if handler is not None
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._answer(request)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            handler = self._handlers.get(request.method)
            if handler is None:
                raise MethodNotAllowedError(self._handlers)
            same_origin.require(request, self._api.origins)
            async with asyncio.timeout_at(received_at(request.scope) + PAGE_SECONDS):
                return await handler(request)
        except TimeoutError:
            late = DeadlineExceededError("The page took too long; try again.")
            return self._api.errors(request, late)
        except ClientDisconnect:
            return Response(status_code=400)  # The client is gone.
        except Exception as exc:
            error = as_mesh_error(exc)
            if error is None:
                raise
            return self._api.errors(request, error)


async def form(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        UnreadableInputError: The body is not a form or has a duplicate field.
        UnsupportedEncodingError: The body is compressed.
    """
    require_identity(request.headers.getlist("content-encoding"))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind != _FORM:
            raise ValueError("not a form")
        fields = parse_qs(
            (await request.body()).decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError as exc:
        raise UnreadableInputError("The form cannot be read.") from exc
    if any(len(values) != 1 for values in fields.values()):
        raise UnreadableInputError("A form field occurs more than once.")
    return {name: values[0] for name, values in fields.items()}
