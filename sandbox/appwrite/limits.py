"""Rate limits: fixed windows per operation, for every caller without an API key."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sandbox.appwrite.errors import AppwriteError
from sandbox.appwrite.state import Project

HOUR = timedelta(hours=1)
MOST_WINDOWS = 10_000


@dataclass
class _Window:
    hits: int
    ends_at: datetime


class RateLimitedError(AppwriteError):
    """The limit is reached; carries the rate-limit headers."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__("general_rate_limit_exceeded")
        self.headers = headers


class Limits:
    """Counts the operations of callers without an API key."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._windows: dict[str, _Window] = {}

    def hit(self, key: str, *, most: int, window: timedelta = HOUR) -> dict[str, str]:
        """Count one operation; return the rate-limit headers."""
        now = self._project.now()
        found = self._windows.get(key)
        if found is None or found.ends_at <= now:
            if len(self._windows) >= MOST_WINDOWS:
                self._windows.clear()
            found = self._windows[key] = _Window(0, now + window)
        found.hits += 1
        headers = {
            "X-RateLimit-Limit": str(most),
            "X-RateLimit-Remaining": str(max(0, most - found.hits)),
            "X-RateLimit-Reset": str(int(found.ends_at.timestamp())),
        }
        if found.hits > most:
            raise RateLimitedError(headers)
        return headers

    def reset(self, key: str) -> None:
        """Reset the count of *key*."""
        self._windows.pop(key, None)
