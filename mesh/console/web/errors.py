"""How the API says no."""

from starlette.responses import JSONResponse


def error(status: int, code: str, message: str) -> JSONResponse:
    """Return an error as the API shows it."""
    return JSONResponse({"error": {"code": code, "message": message}}, status)
