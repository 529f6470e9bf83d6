"""Sessions that ended before their user tokens expired."""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable

import grpc
import structlog

log = structlog.get_logger("revocations")

KEPT_SECONDS = 90.0
"""Longer than the lifetime of a user token, and than a follower's reconnection."""
SILENCE_SECONDS = 15.0
"""Three heartbeats; a stream that is silent for longer is reopened."""
PAUSE_SECONDS = (0.2, 5.0)
"""The first and the maximum pause between reconnections."""


class RevokedSessions:
    """The ids of sessions whose tokens are rejected; entries expire after `KEPT_SECONDS`.

    While Auth is unavailable, nothing is added, and tokens of ended sessions work until they
    expire, at most 60 s.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._expiries: OrderedDict[str, float] = OrderedDict()

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._expiries

    def add(self, session_ids: Iterable[str]) -> None:
        """Reject the tokens of these sessions."""
        now = self._now()
        for session_id in session_ids:
            self._expiries[session_id] = now + KEPT_SECONDS
            self._expiries.move_to_end(session_id)
        while self._expiries and next(iter(self._expiries.values())) <= now:
            self._expiries.popitem(last=False)

    async def follow(self, watch: Callable[[], AsyncIterator[Iterable[str]]]) -> None:
        """Add the sessions that *watch* yields until cancelled, and reopen it when it ends.

        Args:
            watch: Opens a stream of session ids; the first item has those of the last 90 s,
                and there is an item, empty or not, every few seconds.
        """
        pause, longest = PAUSE_SECONDS
        while True:
            try:
                stream = watch()
                while True:
                    async with asyncio.timeout(SILENCE_SECONDS):
                        session_ids = await anext(stream)
                    self.add(session_ids)
                    pause = PAUSE_SECONDS[0]
            except (grpc.aio.AioRpcError, StopAsyncIteration, TimeoutError) as exc:
                if not _is_over(exc):
                    log.warning(
                        "revocations interrupted", fault=type(exc).__name__, retry_seconds=pause
                    )
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - not a secret
            pause = min(pause * 2, longest)


def _is_over(exc: Exception) -> bool:
    """Return whether a stream has ended because its lifetime is over."""
    if isinstance(exc, grpc.aio.AioRpcError):
        return exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    return isinstance(exc, StopAsyncIteration)
