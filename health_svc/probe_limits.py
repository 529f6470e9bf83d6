"""Limits of probes in flight, and results shared between callers for a moment."""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, replace
from datetime import timedelta

from health_svc.probes import DEFAULT_TIMEOUT, Probe, Prober
from mesh.chassis.errors import RateLimitedError, UnavailableError
from mesh.chassis.telemetry.metrics import LIMIT_REFUSALS

PER_USER = 8
"""Probes of one user in flight: a page of hosts at a time, a small part of the total."""
TOTAL = 64
"""Probes in flight. Below the 100 calls of the service, so that status always has room."""
SHARED_FOR = timedelta(seconds=2)
"""How long a result serves other callers: shorter than a person notices."""
_MOST_RESULTS = 256
_Key = tuple[str, int, timedelta]


@dataclass
class _Running:
    task: asyncio.Task[Probe]
    waiting: int = 0


class SharedProber:
    """Runs each probe once for all who ask at the same time."""

    def __init__(
        self,
        prober: Prober,
        *,
        per_user: int = PER_USER,
        total: int = TOTAL,
        shared_for: timedelta = SHARED_FOR,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prober = prober
        self._per_user = per_user
        self._total = total
        self._shared_seconds = shared_for.total_seconds()
        self._clock = clock
        self._in_flight: Counter[str] = Counter()
        self._running: dict[_Key, _Running] = {}
        self._results: OrderedDict[_Key, tuple[float, Probe]] = OrderedDict()

    async def probe(
        self,
        user_id: str,
        host: str,
        port: int,
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
        within: timedelta | None = None,
    ) -> Probe:
        """
        Probe *host* on behalf of a user; see ``Prober.probe``.

        Raises:
            RateLimitedError: The user has as many probes in flight as allowed.
            UnavailableError: All users together have.
        """
        with self._counted(user_id):
            key = (host.lower().removesuffix("."), port, timeout)
            known = self._results.get(key)
            if known is not None and self._clock() - known[0] < self._shared_seconds:
                return replace(known[1], host=host)
            running = self._running.get(key)
            if running is None:
                work = self._prober.probe(host, port, timeout=timeout, within=within)
                # A context of its own: it outlives the caller that happens to be first.
                running = _Running(asyncio.create_task(work, context=Context()))
                self._running[key] = running
            return replace(await self._join(key, running), host=host)

    async def _join(self, key: _Key, running: _Running) -> Probe:
        running.waiting += 1
        try:
            found = await asyncio.shield(running.task)
            self._results[key] = self._clock(), found
            self._results.move_to_end(key)
            if len(self._results) > _MOST_RESULTS:
                self._results.popitem(last=False)
            return found
        finally:
            running.waiting -= 1
            if not running.waiting:
                running.task.cancel()  # Does nothing when it has finished.
                self._running.pop(key, None)

    @contextmanager
    def _counted(self, user_id: str) -> Iterator[None]:
        if self._in_flight[user_id] >= self._per_user:
            LIMIT_REFUSALS.labels("probes_per_user").inc()
            raise RateLimitedError(
                f"{self._per_user} probes are in flight; wait for one of them.",
                retry_after=timedelta(seconds=1),
            )
        if self._in_flight.total() >= self._total:
            LIMIT_REFUSALS.labels("probes_total").inc()
            raise UnavailableError("Too many probes are in flight.")
        self._in_flight[user_id] += 1
        try:
            yield
        finally:
            self._in_flight[user_id] -= 1
            if not self._in_flight[user_id]:
                del self._in_flight[user_id]
