"""Admission control: a concurrency limit that adapts to the measured queueing delay."""

import asyncio
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from prometheus_client import Gauge

from mesh.chassis.errors import UnavailableError
from mesh.chassis.telemetry import names
from mesh.chassis.telemetry.metrics import LIMIT_REFUSALS

START_HEADER = b"x-amarre-start"
"""Set by Envoy: when the first byte of the request arrived, in milliseconds since 1970."""
_RECEIVED_AT = "amarre.received_at"
_OLDEST_SECONDS = 60.0
LEAST_IN_FLIGHT = 16
"""The concurrency limit never falls below this, so that recovery can be measured."""
_INTERVAL_SECONDS = 0.1
_IDLE_SECONDS = 0.5
_DECREASE = 0.9
_INCREASE = 1.1
CONCURRENCY_LIMIT = Gauge(names.CONCURRENCY_LIMIT, "Current limit of requests in flight.")


def age_seconds(headers: Mapping[bytes, str]) -> float:
    """Return how long ago the first byte of a request reached the edge; 0 when unknown."""
    stamp = headers.get(START_HEADER, "")
    if not stamp.isdecimal() or len(stamp) > 15:
        return 0.0
    age = time.time() - int(stamp) / 1000
    return age if 0.0 < age < _OLDEST_SECONDS else 0.0


def receive(scope: MutableMapping[str, Any], age: float) -> None:
    """Record that the first byte of the request of *scope* arrived *age* seconds ago."""
    scope[_RECEIVED_AT] = asyncio.get_running_loop().time() - age


def received_at(scope: MutableMapping[str, Any]) -> float:
    """Return when the first byte of a request arrived, in loop time; now when unknown."""
    known: float | None = scope.get(_RECEIVED_AT)
    return asyncio.get_running_loop().time() if known is None else known


class Admission:
    """
    Adapts a concurrency limit to the queueing delay of requests.

    In each interval of 100 ms the smallest delay counts, as in CoDel: a burst that drains is not
    a queue. While it is above the target the limit shrinks by a tenth; while requests need the
    limit and the delay is below, it grows by a tenth.

    Source:
        RFC 8289 (CoDel), section 4; RFC 5681, section 3.1, for additive increase and
        multiplicative decrease in general.
    """

    def __init__(
        self, *, target_seconds: float, oldest_seconds: float, least: int, most: int
    ) -> None:
        """
        Set the limits.

        Args:
            target_seconds: Queueing delay to stay below.
            oldest_seconds: A request that has waited for longer is rejected at once.
            least: Smallest concurrency limit.
            most: Largest concurrency limit, and the first one.
        """
        self._target = target_seconds
        self._oldest = oldest_seconds
        self._least = least
        self._most = most
        self._limit = float(most)
        self._in_flight = 0
        self._peak = 0
        self._smallest: float | None = None
        self._ends_at = 0.0
        CONCURRENCY_LIMIT.set(most)

    @property
    def limit(self) -> int:
        """The current concurrency limit."""
        return int(self._limit)

    def admit(self, delay_seconds: float, *, always: bool = False) -> "Admitted":
        """
        Admit a request until it is released.

        Args:
            delay_seconds: Time since its first byte.
            always: Whether it is never rejected, like health checks and log-out.

        Raises:
            UnavailableError: Too many requests are in flight, or this one has waited too long.
        """
        self._observe(delay_seconds)
        if not always:
            if self._in_flight >= int(self._limit):
                LIMIT_REFUSALS.labels("requests_in_flight").inc()
                raise UnavailableError("The gateway is at capacity; try again later.")
            if delay_seconds > self._oldest:
                LIMIT_REFUSALS.labels("request_waited").inc()
                raise UnavailableError("The request waited too long; try again later.")
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        return Admitted(self)

    def release(self) -> None:
        """Count one request less."""
        self._in_flight -= 1

    async def sample(self) -> None:
        """Measure the event loop delay until cancelled; it adds to each request's delay."""
        loop = asyncio.get_running_loop()
        while True:
            # Without requests there is no queue; frequent checks would dominate the idle load.
            pause = _INTERVAL_SECONDS / 4 if self._in_flight else _IDLE_SECONDS
            due = loop.time() + pause
            await asyncio.sleep(pause)
            self._observe(max(0.0, loop.time() - due))

    def _observe(self, delay_seconds: float) -> None:
        now = time.monotonic()
        if now >= self._ends_at:
            self._adapt()
            self._ends_at = now + _INTERVAL_SECONDS
            self._smallest = delay_seconds
            self._peak = self._in_flight
        elif self._smallest is None or delay_seconds < self._smallest:
            self._smallest = delay_seconds

    def _adapt(self) -> None:
        if self._smallest is None:
            return
        if self._smallest > self._target:
            # From the number in flight: a limit far above it would take long to have an effect.
            start = min(self._limit, max(self._peak, self._least))
            self._limit = max(float(self._least), start * _DECREASE)
        elif self._peak >= self._limit * _DECREASE:
            self._limit = min(float(self._most), self._limit * _INCREASE + 1)
        elif self._limit < self._most and self._smallest < self._target / 2:
            self._limit = min(float(self._most), self._limit + 1)
        CONCURRENCY_LIMIT.set(int(self._limit))


class Admitted:
    """One request that was admitted."""

    def __init__(self, admission: Admission) -> None:
        self._admission: Admission | None = admission

    def release(self) -> None:
        """Count the request no longer, as when it becomes an event stream; may be called again."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.release()
