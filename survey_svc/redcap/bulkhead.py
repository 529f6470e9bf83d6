"""Bulkhead: limits the calls of one kind, so that they cannot exhaust shared capacity."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

from prometheus_client import Counter

from mesh.chassis.errors import UnavailableError

REJECTED = Counter(
    "amarre_redcap_lookups_rejected", "Address look-ups rejected because too many were waiting."
)


class Bulkhead:
    """Limits running and waiting calls; rejects further ones immediately."""

    def __init__(self, *, running: int, waiting: int) -> None:
        self._slots = asyncio.Semaphore(running)
        self._free = running + waiting

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Acquire a slot for the duration of the body.

        Raises:
            UnavailableError: Too many calls are waiting.
        """
        if not self._free:
            REJECTED.inc()
            raise UnavailableError(
                "Too many look-ups are waiting for REDCap; try again.",
                retry_after=timedelta(seconds=2),
            )
        self._free -= 1
        try:
            async with self._slots:
                yield
        finally:
            self._free += 1
