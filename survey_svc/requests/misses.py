"""Misses: look-ups of record ids that are not the user's, cached and limited per user."""

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta

from prometheus_client import Counter

from mesh.chassis.errors import RateLimitedError
from mesh.chassis.telemetry.metrics import LIMIT_REFUSALS

REJECTED = Counter(
    "amarre_survey_misses_rejected", "Calls rejected because a user named too many unknown ids."
)

REMEMBERED_SECONDS = 10.0
"""How long a miss is cached."""
REFILL_SECONDS = 60.0
MAX_KEPT = 4096
"""Bounds memory; an evicted entry costs one call to REDCap."""


class Misses:
    """Caches which ids users do not own, and limits the number of misses."""

    def __init__(self, most: int, now: Callable[[], float] = time.monotonic) -> None:
        """Allow *most* misses of a user, refilled over a minute.

        Pages and clients only use ids that they were given.
        """
        self._most = float(most)
        self._per_second = most / REFILL_SECONDS
        self._now = now
        self._until: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._budgets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def is_remembered(self, user: str, record: str) -> bool:
        """Return whether *record* was looked up recently and is not the user's.

        Raises:
            RateLimitedError: The user has named too many unknown ids.
        """
        self._spend(user)
        return self._until.get((user, record), 0.0) > self._now()

    def remember(self, user: str, record: str) -> None:
        """Record that *record* is not the user's."""
        self._until[user, record] = self._now() + REMEMBERED_SECONDS
        self._until.move_to_end((user, record))
        if len(self._until) > MAX_KEPT:
            self._until.popitem(last=False)

    def _spend(self, user: str) -> None:
        left, at = self._budgets.pop(user, (self._most, self._now()))
        left = min(self._most, left + (self._now() - at) * self._per_second)
        self._budgets[user] = max(0.0, left - 1.0), self._now()
        if len(self._budgets) > MAX_KEPT:
            self._budgets.popitem(last=False)
        if left < 1.0:
            REJECTED.inc()
            LIMIT_REFUSALS.labels("unknown_ids_per_user").inc()
            raise RateLimitedError(
                "Too many unknown request ids; wait, and use the ids of the list.",
                retry_after=timedelta(seconds=(1.0 - left) / self._per_second),
            )
