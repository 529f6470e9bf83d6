"""Circuit breaker: after failures in a row, calls to REDCap fail at once for a while."""

import time
from collections.abc import Callable

from prometheus_client import Gauge

from mesh.chassis.errors import UnavailableError
from mesh.chassis.telemetry import names

OPEN = Gauge(names.REDCAP_BREAKER_OPEN, "1 while calls to REDCap fail immediately.")
LOOKUPS_OPEN = Gauge(
    "amarre_redcap_lookup_breaker_open", "1 while address look-ups in REDCap fail immediately."
)
FAILURES = 8
"""How many failures in a row open the circuit."""
REST_SECONDS = 2.0
"""How long it stays open before one call may try."""


class Breaker:
    """Counts failures in a row; while open, lets one call through per rest."""

    def __init__(self, now: Callable[[], float] = time.monotonic, gauge: Gauge = OPEN) -> None:
        self._now = now
        self._gauge = gauge
        self._failures = 0
        self._next_try = 0.0

    def admit(self) -> None:
        """Let a call go out.

        Raises:
            UnavailableError: The circuit is open.
        """
        if self._failures < FAILURES:
            return
        if self._now() < self._next_try:
            raise UnavailableError("REDCap failed repeatedly; calls resume shortly.")
        self._next_try = self._now() + REST_SECONDS

    def succeeded(self) -> None:
        """Close the circuit."""
        self._failures = 0
        self._gauge.set(0)

    def failed(self) -> None:
        """Count a failure."""
        self._failures += 1
        if self._failures == FAILURES:
            self._gauge.set(1)
            self._next_try = self._now() + REST_SECONDS
