"""
Errors raised by the gateway itself.

    MeshError
    ├── CsrfError                  not proven to come from our own pages
    ├── MethodNotAllowedError      the path exists, the method does not
    ├── OtherUserError             a form from a page of another user
    ├── PayloadTooLargeError       more than 64 KiB
    ├── UnsupportedEncodingError   compressed request body
    └── InvalidRequestError
        └── UnreadableInputError   invalid JSON, wrong content type, unknown name
"""

from collections.abc import Iterable, Sequence

from amarre.auth.v1.auth_pb2 import User

from mesh.chassis.errors import ConflictError, InvalidRequestError, MeshError, Violation


class CsrfError(MeshError):
    """A state-changing request is not proven to come from our own pages."""

    reason = "CSRF_FAILED"

    def __init__(self) -> None:
        super().__init__(
            "State-changing requests must come from this site: send "
            "Sec-Fetch-Site: same-origin or an Origin header with this origin."
        )


class MethodNotAllowedError(MeshError):
    """The path does not support the HTTP method; ``allowed`` lists those it does."""

    reason = "METHOD_NOT_ALLOWED"

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"This path supports {self.allowed} only.")


class OtherUserError(ConflictError):
    """A form was rendered for another user than *user*, who is signed in now."""

    def __init__(self, user: User) -> None:
        super().__init__("The form belongs to another user; reload the page that contains it.")
        self.user = user


class PayloadTooLargeError(MeshError):
    """The body exceeds the size limit."""

    reason = "PAYLOAD_TOO_LARGE"


class UnsupportedEncodingError(MeshError):
    """The request body is compressed."""

    reason = "UNSUPPORTED_CONTENT_ENCODING"

    def __init__(self) -> None:
        super().__init__("Compressed request bodies are not supported; send the body as is.")


class UnreadableInputError(InvalidRequestError):
    """The body or query does not match the contract; ``cause`` says what was found."""

    def __init__(
        self,
        message: str,
        *,
        area: str = "mesh",
        as_reason: str = "INVALID_REQUEST",
        cause: str = "",
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message, violations=violations, area=area, as_reason=as_reason)
        if cause:
            self.metadata["cause"] = cause
