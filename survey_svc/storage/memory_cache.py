"""In-memory cache."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import timedelta

MOST_BYTES = 64 * 1024 * 1024


class MemoryCache:
    """Implements `survey_svc.ports.Cache`: bounded, evicts the least recently used."""

    def __init__(
        self, *, most_bytes: int = MOST_BYTES, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most_bytes
        self._now = now
        self._held = 0
        self._values: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    async def get(self, key: str) -> bytes | None:
        kept = self._values.get(key)
        if kept is None:
            return None
        ends_at, value = kept
        if self._now() >= ends_at:
            self._forget(key)
            return None
        self._values.move_to_end(key)
        return value

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [await self.get(key) for key in keys]

    async def put(self, key: str, value: bytes, ttl: timedelta) -> None:
        self._forget(key)
        self._values[key] = self._now() + ttl.total_seconds(), value
        self._held += len(key) + len(value)
        while self._held > self._most:
            self._forget(next(iter(self._values)))

    async def drop(self, key: str) -> None:
        self._forget(key)

    async def close(self) -> None:
        self._values.clear()
        self._held = 0

    def _forget(self, key: str) -> None:
        kept = self._values.pop(key, None)
        if kept is not None:
            self._held -= len(key) + len(kept[1])
