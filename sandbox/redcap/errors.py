"""API errors: a status and one sentence.

ApiError              400, the request is wrong
├── ForbiddenError    403, unknown token or missing right
└── UnsupportedError  501, no such operation
"""


class ApiError(Exception):
    """The request is invalid; the message says why."""

    status = 400

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ForbiddenError(ApiError):
    """The token is unknown, or its user lacks the required right."""

    status = 403


class UnsupportedError(ApiError):
    """The operation is not implemented."""

    status = 501

    def __init__(self) -> None:
        super().__init__("The requested method is not implemented.")
