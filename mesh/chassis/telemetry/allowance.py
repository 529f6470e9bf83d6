"""How often something may be recorded: evenly over time, with a burst."""

import time
from collections.abc import Callable


class Allowance:
    """A token bucket."""

    def __init__(
        self, *, per_second: float, burst: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._now = now
        self._left = self._burst
        self._at = now()

    def take(self) -> bool:
        """Whether it may be recorded once more now."""
        at = self._now()
        self._left = min(self._burst, self._left + (at - self._at) * self._per_second)
        self._at = at
        if self._left < 1:
            return False
        self._left -= 1
        return True
