"""
What the gateway itself refuses.

    MeshError
    ├── CsrfError                  no proof that our own pages sent it
    ├── MethodNotAllowedError      the path exists, the method does not
    ├── PayloadTooLargeError       more than 64 KiB
    └── InvalidRequestError
        └── UnreadableInputError   no JSON, another content type, an unknown name...
"""

from collections.abc import Iterable, Sequence

from mesh.chassis.errors import InvalidRequestError, MeshError, Violation


class CsrfError(MeshError):
    """A state-changing request did not prove that one of our own pages sent it."""

    reason = "CSRF_FAILED"

    def __init__(self) -> None:
        super().__init__(
            "Requests that change something must come from this site: send "
            "Sec-Fetch-Site: same-origin or an Origin header with this origin."
        )


class MethodNotAllowedError(MeshError):
    """The path exists, the HTTP method does not; ``allowed`` names those that do."""

    reason = "METHOD_NOT_ALLOWED"

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"This path takes {self.allowed} only.")


class PayloadTooLargeError(MeshError):
    """The body is larger than the gateway reads."""

    reason = "PAYLOAD_TOO_LARGE"


class UnreadableInputError(InvalidRequestError):
    """The body or the query is not what the contract reads; ``cause`` is what was found."""

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
