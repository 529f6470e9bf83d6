"""Error responses of the API."""

from starlette.responses import JSONResponse


def error(status: int, code: str, message: str) -> JSONResponse:
    """Return an error response in the envelope of the API."""
    return JSONResponse({"error": {"code": code, "message": message}}, status)
