"""Authorization: callers, then session rule, of the method's policy."""

from mesh.chassis.call import User
from mesh.chassis.errors import (
    FreshSignInRequiredError,
    PermissionDeniedError,
    SecondFactorRequiredError,
    UnauthenticatedError,
)
from mesh.chassis.identity import SpiffeId
from mesh.chassis.interceptors.context import Metadata
from mesh.chassis.tokens import InvalidTokenError, TokenVerifier
from mesh.contract.policy import Method
from mesh.contract.reasons import CALL_MESSAGES


def authorize_caller(method: Method, caller: SpiffeId) -> None:
    """Check that the contract names *caller*.

    Raises:
        PermissionDeniedError: It does not; the metadata names the policy line.
    """
    if not method.allows(caller.name):
        raise PermissionDeniedError(
            CALL_MESSAGES["PERMISSION_DENIED"],
            method=method.short_name,
            caller=caller.name,
            allowed=",".join(method.callers),
            policy=method.source,
        )


async def authorize_user(
    method: Method,
    caller: SpiffeId,
    metadata: Metadata,
    tokens: TokenVerifier | None,
) -> User:
    """Return the signed-in user that *method* requires.

    Raises:
        UnauthenticatedError: The token is missing or not accepted by this service.
        PermissionDeniedError: The user has none of the required roles, must present a second
            factor, or signed in too long ago.
    """
    values = [value for key, value in metadata if key == "authorization"]
    if len(values) != 1 or not isinstance(values[0], str) or not values[0].startswith("Bearer "):
        raise UnauthenticatedError(
            "The call requires exactly one user token: authorization: Bearer TOKEN."
        )
    if tokens is None:
        raise UnauthenticatedError("This server does not verify user tokens.")
    try:
        user = await tokens.verify(values[0].removeprefix("Bearer "), caller=caller)
    except InvalidTokenError as exc:
        raise UnauthenticatedError(str(exc)) from exc
    if method.roles and not set(method.roles) & set(user.labels):
        raise PermissionDeniedError(
            "The user does not have a role that permits this call.",
            roles=",".join(method.roles),
        )
    if user.partial and method.needs_all_factors:
        raise SecondFactorRequiredError
    age = method.sign_in_age
    if age is not None and tokens.now() - user.signed_in_at > age.total_seconds():
        raise FreshSignInRequiredError(age)
    return user
