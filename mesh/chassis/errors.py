"""Error hierarchy, to and from ``google.rpc.Status``.

    MeshError                    INTERNAL
    ├── InvalidRequestError      a field breaks a rule; carries violations
    ├── UnauthenticatedError     no user is signed in
    ├── PermissionDeniedError    the caller or the user is not allowed
    │   ├── FreshSignInRequiredError    the user signed in too long ago for this
    │   └── SecondFactorRequiredError   the user must also present a passkey
    ├── NotFoundError            absent, or owned by another user
    ├── ConflictError            conflicts with the current state
    ├── RateLimitedError         too many requests; carries a retry delay
    ├── UnavailableError         temporarily unavailable; carries a retry delay
    ├── DeadlineExceededError    took too long
    ├── UpstreamError            a back-end returned an invalid response
    └── RemoteError              the error of another service of the mesh

Each service adds subclasses for the reasons of its own contract. The contract states the status
code of each reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from mesh.contract import reasons
from mesh.contract.reasons import Reason

M = TypeVar("M", bound=Message)
_DETAILS = "grpc-status-details-bin"


@dataclass(frozen=True)
class Violation:
    """A broken rule: the field's path in the request, what is accepted, the rule's id."""

    field: str
    description: str
    rule: str = ""


class MeshError(Exception):
    """Base of every error that may cross a service boundary.

    Subclasses fix ``area`` and ``reason``, which name a value of an ``ErrorReason`` enum.

    Args:
        message: One English sentence for a developer. Without secrets or personal data.
        retry_after: When to try again; becomes RetryInfo.
        violations: Broken rules; become BadRequest.
        details: Further messages for the caller.
        metadata: The facts in *message*, keys in lowerCamelCase with their unit.

    Source:
        AIP-193.
    """

    area: ClassVar[str] = "mesh"
    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        retry_after: timedelta | None = None,
        violations: Sequence[Violation] = (),
        details: Sequence[Message] = (),
        **metadata: str,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.violations = tuple(violations)
        self.details = tuple(details)
        self.metadata = metadata

    @property
    def contract(self) -> Reason:
        """The contract's entry for this reason."""
        found = reasons.find(self.area, self.reason)
        if found is None:
            raise LookupError(f"No contract has the error reason {self.area}.{self.reason}.")
        return found

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status code."""
        return grpc.StatusCode[self.contract.grpc]


class InvalidRequestError(MeshError):
    """A field of the request breaks a rule; ``as_reason`` names a more specific reason."""

    reason = "INVALID_REQUEST"

    def __init__(
        self,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        area: str = "mesh",
        as_reason: str = "INVALID_REQUEST",
    ) -> None:
        super().__init__(message, violations=violations)
        self._reason = area, as_reason

    @property
    def contract(self) -> Reason:
        """The contract's entry for the specific reason."""
        return reasons.find(*self._reason) or super().contract


class UnauthenticatedError(MeshError):
    """No user is signed in."""

    reason = "UNAUTHENTICATED"


class PermissionDeniedError(MeshError):
    """The caller or the user may not do this."""

    reason = "PERMISSION_DENIED"


class FreshSignInRequiredError(PermissionDeniedError):
    """The user signed in longer ago than *age* and must sign in again first."""

    reason = "FRESH_SIGN_IN_REQUIRED"

    def __init__(self, age: timedelta) -> None:
        seconds = f"{age.total_seconds():.0f}"
        super().__init__(
            f"This requires a sign-in within the last {seconds} s; sign in again.",
            cause="fresh_sign_in_required",
            ageSeconds=seconds,
        )


class SecondFactorRequiredError(PermissionDeniedError):
    """The user must also sign in with a passkey, the second factor."""

    reason = "SECOND_FACTOR_REQUIRED"

    def __init__(self) -> None:
        super().__init__(
            "A mailed link is not sufficient here; sign in with a passkey.",
            cause="second_factor_required",
        )


class NotFoundError(MeshError):
    """The resource does not exist or belongs to another user."""

    reason = "NOT_FOUND"


class ConflictError(MeshError):
    """The request conflicts with the current state."""

    reason = "CONFLICT"


class RateLimitedError(MeshError):
    """Too many requests."""

    reason = "RATE_LIMITED"


class UnavailableError(MeshError):
    """The service or one of its dependencies is temporarily unavailable."""

    reason = "UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        retry_after: timedelta = timedelta(seconds=1),
        details: Sequence[Message] = (),
        **metadata: str,
    ) -> None:
        super().__init__(
            message, retry_after=retry_after, violations=(), details=details, **metadata
        )


class DeadlineExceededError(MeshError):
    """The call exceeded its deadline."""

    reason = "DEADLINE_EXCEEDED"


class UpstreamError(MeshError):
    """A back-end of the service returned an invalid response."""

    reason = "UPSTREAM_ERROR"


class RemoteError(MeshError):
    """The error of another service of the mesh, or of the proxy in front of it."""

    def __init__(self, contract: Reason, status: status_pb2.Status) -> None:
        info = unpack(status, error_details_pb2.ErrorInfo)
        retry = unpack(status, error_details_pb2.RetryInfo)
        bad = unpack(status, error_details_pb2.BadRequest)
        super().__init__(
            status.message,
            retry_after=retry.retry_delay.ToTimedelta() if retry else None,
            violations=[
                Violation(v.field, v.description, v.reason)
                for v in (bad.field_violations if bad else ())
            ],
        )
        self.metadata = dict(info.metadata) if info else {}
        self.status = status
        self._contract = contract

    @property
    def contract(self) -> Reason:
        """The contract's entry for the reason received."""
        return self._contract


def to_status(error: MeshError) -> status_pb2.Status:
    """Return the status of *error*: one ErrorInfo, and BadRequest or RetryInfo where they apply."""
    contract = error.contract
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=contract.name, domain=contract.domain, metadata=error.metadata
        )
    ]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=v.field, description=v.description, reason=v.rule
                    )
                    for v in error.violations
                ]
            )
        )
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(error.retry_after)
        details.append(retry)
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    for detail in (*details, *error.details):
        status.details.add().Pack(detail)
    return status


def to_trailers(error: MeshError) -> tuple[tuple[str, bytes], ...]:
    """Return the trailing metadata that carries the details of *error*."""
    return ((_DETAILS, to_status(error).SerializeToString()),)


_BY_CODE = {
    grpc.StatusCode.UNAVAILABLE: "UNAVAILABLE",
    grpc.StatusCode.DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
    grpc.StatusCode.CANCELLED: "DEADLINE_EXCEEDED",
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",
    grpc.StatusCode.PERMISSION_DENIED: "PERMISSION_DENIED",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "RATE_LIMITED",
    grpc.StatusCode.NOT_FOUND: "NOT_FOUND",
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_REQUEST",
    grpc.StatusCode.UNIMPLEMENTED: "UNAVAILABLE",
}
"""Reasons for statuses without ErrorInfo, which proxies and gRPC itself send."""


def from_rpc_error(error: grpc.aio.AioRpcError) -> RemoteError:
    """Convert *error*, whether a service, a proxy or gRPC itself raised it."""
    status = status_pb2.Status(code=error.code().value[0], message=error.details() or "")
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                break  # The code and the message are still useful.
    info = unpack(status, error_details_pb2.ErrorInfo)
    contract = reasons.by_domain(info.domain, info.reason) if info else None
    return RemoteError(contract or reasons.of_mesh(_BY_CODE.get(error.code(), "INTERNAL")), status)


def unpack(status: status_pb2.Status, kind: type[M]) -> M | None:
    """Return the first detail of *status* that is a *kind*; None when there is none."""
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            return message
    return None
