"""Circuit breaker: after consecutive failures, calls to REDCap fail immediately for a while."""

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
"""Number of consecutive failures that open the circuit."""
REST_SECONDS = 2.0
"""How long the circuit stays open before a trial call."""


class Breaker:
    """Counts consecutive failures; while open, admits one trial call per rest period."""

    def __init__(self, now: Callable[[], float] = time.monotonic, gauge: Gauge = OPEN) -> None:
        self._now = now
        self._gauge = gauge
        self._failures = 0
        self._next_try = 0.0

    def admit(self) -> None:
        """Admit a call.

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
