"""Circuit breaker: after consecutive failures, calls to REDCap fail immediately for a while.

Only failures of REDCap as a whole count, and each call once, whatever the number of its attempts:
one user's broken record must not keep REDCap from the others.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

from prometheus_client import Gauge

from mesh.chassis.errors import MeshError, UnavailableError
from mesh.chassis.telemetry import names
from survey_svc.errors import OperationFailedError, RefusedError

OPEN = Gauge(names.REDCAP_BREAKER_OPEN, "1 while calls to REDCap fail immediately.")
LOOKUPS_OPEN = Gauge(
    "amarre_redcap_lookup_breaker_open", "1 while address look-ups in REDCap fail immediately."
)
FILES_OPEN = Gauge(
    "amarre_redcap_file_breaker_open", "1 while exports of files from REDCap fail immediately."
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

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Admit the call in the body and count how it ends; a cancelled one does not count.

        Raises:
            UnavailableError: The circuit is open.
        """
        self._admit()
        try:
            yield
        except (OperationFailedError, RefusedError):
            self._succeeded()
            raise
        except MeshError:
            self._failed()
            raise
        self._succeeded()

    def _admit(self) -> None:
        if self._failures < FAILURES:
            return
        if self._now() < self._next_try:
            raise UnavailableError("REDCap failed repeatedly; calls resume shortly.")
        self._next_try = self._now() + REST_SECONDS

    def _succeeded(self) -> None:
        self._failures = 0
        self._gauge.set(0)

    def _failed(self) -> None:
        self._failures += 1
        if self._failures == FAILURES:
            self._gauge.set(1)
            self._next_try = self._now() + REST_SECONDS
