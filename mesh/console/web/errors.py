"""Error responses of the API."""

from collections.abc import Mapping

from starlette.responses import JSONResponse

from mesh.console.store.reader import BadRequestError


class NotFoundError(Exception):
    """The resource does not exist, or not any more."""


class UnavailableError(Exception):
    """The request cannot be served at the moment; the message says what to do."""


ERRORS: Mapping[type[Exception], tuple[int, str]] = {
    BadRequestError: (400, "invalid_request"),
    NotFoundError: (404, "not_found"),
    UnavailableError: (503, "unavailable"),
}
"""HTTP status and code of each exception that an endpoint may raise; its message is for people."""


def error(status: int, code: str, message: str) -> JSONResponse:
    """Return an error response in the envelope of the API."""
    return JSONResponse({"error": {"code": code, "message": message}}, status)
