"""The call being served: its caller, its user and its remaining time."""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

from mesh.chassis.identity import SpiffeId


@dataclass(frozen=True)
class User:
    """The signed-in person, from a verified user token."""

    id: str
    session_id: str
    email: str = field(repr=False)
    labels: tuple[str, ...] = ()
    signed_in_at: int = 0
    """Time of the sign-in, in seconds since 1970."""
    partial: bool = False
    """Whether the second factor is still missing."""


class Call(NamedTuple):
    """One call: its method (``survey.ListRequests``), caller, user and end (loop time)."""

    method: str
    caller: SpiffeId
    ends_at: float
    user: User | None = None


_current: ContextVar[Call | None] = ContextVar("call", default=None)
to_canary: ContextVar[bool] = ContextVar("to_canary", default=False)
"""Whether ``x-canary: 1`` came in; it is forwarded on every outgoing call."""


def enter(call: Call) -> None:
    """Make *call* the current one in this task."""
    _current.set(call)


def current() -> Call | None:
    """Return the call that this task serves; None outside of a call."""
    return _current.get()


def user() -> User:
    """Return the signed-in user; only for methods whose contract requires a session."""
    call = _current.get()
    if call is None or call.user is None:
        raise LookupError("There is no user: the policy of this method does not require a session.")
    return call.user


def remaining_seconds() -> float | None:
    """Return the remaining time of the current call in seconds; None outside of a call."""
    call = _current.get()
    return None if call is None else max(0.0, call.ends_at - asyncio.get_running_loop().time())
