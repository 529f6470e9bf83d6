"""Shares calls between concurrent callers (single flight)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from mesh.chassis.errors import DeadlineExceededError
from survey_svc import deadline
from survey_svc.deadline import Deadline

T = TypeVar("T")
DEFAULT_SECONDS = 10.0
"""Deadline of a caller outside a call."""


class SharedCalls(Generic[T]):
    """Runs one call per key for all concurrent callers.

    The call has the longest deadline of its waiters; each waits until its own, and the call is
    cancelled when the last one is cancelled.
    """

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[T]] = {}

    async def run(self, key: str, work: Callable[[], Awaitable[T]], *, fresh: bool = False) -> T:
        """Return the result of *work*.

        Args:
            key: Callers with the same key share one call.
            work: Starts the call.
            fresh: Start a new call even if one is running; later callers share the new one.

        Raises:
            DeadlineExceededError: The caller's own deadline has passed; other errors are those of
            *work*.
        """
        own = deadline.current(DEFAULT_SECONDS)
        flight = self._flights.get(key)
        if fresh or flight is None or flight.task.done():
            flight = _Flight(work, own.ends_at)
            self._flights[key] = flight
        flight.deadline.extend(own.ends_at)
        flight.waiters += 1
        try:
            async with asyncio.timeout_at(own.ends_at) as limit:
                return await asyncio.shield(flight.task)
        except TimeoutError as exc:
            if not limit.expired():
                raise
            raise DeadlineExceededError("REDCap did not respond in the remaining time.") from exc
        finally:
            flight.waiters -= 1
            if not flight.waiters:
                flight.task.cancel()
                if self._flights.get(key) is flight:
                    del self._flights[key]

    def forget(self, key: str) -> None:
        """Let later callers start a new call; current waiters still get the old one."""
        self._flights.pop(key, None)


class _Flight(Generic[T]):
    def __init__(self, work: Callable[[], Awaitable[T]], ends_at: float) -> None:
        self.deadline = Deadline(ends_at)
        self.waiters = 0
        self.task = asyncio.create_task(self._run(work))
        self.task.add_done_callback(_retrieve)

    async def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        deadline.share(self.deadline)
        return await work()


def _retrieve(task: asyncio.Task[T]) -> None:
    if not task.cancelled():
        task.exception()  # Every waiter gets it; asyncio would warn if all were cancelled.
