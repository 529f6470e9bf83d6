"""A wall clock that does not jump: read once, then advanced by a monotonic clock."""

import time
from collections.abc import Callable
from datetime import datetime

Now = Callable[[], int]
"""Returns the Unix time in microseconds."""


def steady() -> Now:
    """Return a clock that starts at the current time and ignores later clock adjustments."""
    # CLOCK_BOOTTIME keeps running while a laptop is suspended; CLOCK_MONOTONIC does not.
    kind = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    offset = time.time_ns() - time.clock_gettime_ns(kind)
    return lambda: (offset + time.clock_gettime_ns(kind)) // 1000


def rfc3339(microseconds: int) -> str:
    """Return a Unix time as text in UTC."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:06d}Z"


def parse(text: str) -> int:
    """Return the Unix time in microseconds that *text* (RFC 3339) names."""
    return round(datetime.fromisoformat(text).timestamp() * 1e6)
