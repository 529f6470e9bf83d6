"""Deadlines of work that several calls share."""

import asyncio
from contextvars import ContextVar

from mesh.chassis import call

MARGIN_SECONDS = 0.25
"""The part of a call's time reserved for sending the response."""


class Deadline:
    """A deadline in event loop time that can be extended."""

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at

    def extend(self, ends_at: float) -> None:
        """Extend the deadline to *ends_at* if that is later."""
        self.ends_at = max(self.ends_at, ends_at)

    def remaining_seconds(self) -> float:
        """Return the time left, at least 0."""
        return max(0.0, self.ends_at - asyncio.get_running_loop().time())


_shared: ContextVar[Deadline | None] = ContextVar("shared_deadline", default=None)


def share(deadline: Deadline) -> None:
    """Use *deadline* for this task instead of the call's own."""
    _shared.set(deadline)


def current(default_seconds: float) -> Deadline:
    """Return the deadline of this task: the shared one, else the call's, else *default_seconds*."""
    shared = _shared.get()
    if shared is not None:
        return shared
    left = call.remaining_seconds()
    seconds = default_seconds if left is None else max(0.0, left - MARGIN_SECONDS)
    return Deadline(asyncio.get_running_loop().time() + seconds)
