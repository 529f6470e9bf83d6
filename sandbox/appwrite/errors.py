"""Appwrite's error types, with their statuses and messages."""

from starlette.responses import JSONResponse

VERSION = "1.9.6"

_ERRORS: dict[str, tuple[int, str]] = {
    "general_argument_invalid": (400, "Invalid parameter."),
    "user_count_exceeded": (400, "The current project has exceeded the maximum number of users."),
    "general_unauthorized_scope": (401, "Missing scopes."),
    "user_invalid_token": (401, "Invalid token passed in the request."),
    "user_session_already_exists": (
        401,
        "Creation of a session is prohibited when a session is active.",
    ),
    "user_jwt_invalid": (401, "Failed to verify JWT. The token is wrong or has ended."),
    "user_blocked": (403, "The current user has been blocked."),
    "user_jwt_creation_denied": (403, "A JWT cannot be made with a JWT."),
    "user_jwt_and_cookie_set": (403, "JWT and session used in the same request."),
    "user_session_not_found": (404, "The current user session could not be found."),
    "user_not_found": (404, "User with the requested ID could not be found."),
    "project_not_found": (
        404,
        (
            "Project with the requested ID could not be found. Please check the value of the"
            " X-Appwrite-Project header to ensure the correct project ID is being used."
        ),
    ),
    "general_route_not_found": (404, "Route not found."),
    "general_cursor_not_found": (400, "The cursor is invalid."),
    "user_target_already_exists": (409, "A target with the same ID already exists."),
    "user_already_exists": (
        409,
        "A user with the same id, email, or phone already exists in this project.",
    ),
    "general_rate_limit_exceeded": (
        429,
        "Rate limit for the current endpoint has been exceeded. Please try again after some time.",
    ),
    "general_unknown": (500, "Server Error"),
    "user_auth_method_unsupported": (501, "Magic URL authentication is disabled for this project"),
    "general_smtp_disabled": (503, "SMTP disabled"),
}


class AppwriteError(Exception):
    """One of Appwrite's error types, with its status and a message."""

    def __init__(self, kind: str, message: str = "") -> None:
        self.status, text = _ERRORS[kind]
        self.kind = kind
        self.message = message or text
        super().__init__(self.message)

    def response(self) -> JSONResponse:
        """Return the response body."""
        return JSONResponse(
            {
                "message": self.message,
                "code": self.status,
                "type": self.kind,
                "version": VERSION,
            },
            status_code=self.status,
            headers={
                "Cache-Control": "no-cache, no-store, must-revalidate",
                "Expires": "0",
                "Pragma": "no-cache",
            },
        )


def missing(name: str) -> AppwriteError:
    """Return the error for a missing parameter."""
    return AppwriteError("general_argument_invalid", f'Param "{name}" is not optional.')


def invalid(name: str, why: str) -> AppwriteError:
    """Return the error for an invalid parameter."""
    return AppwriteError("general_argument_invalid", f"Invalid `{name}` param: {why}")
