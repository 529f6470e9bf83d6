"""Cache in Redis, shared by replicas.

If Redis is unavailable, every look-up is a miss: lists are slower, never wrong.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

log = structlog.get_logger("cache")


class RedisCache:
    """Implements `survey_svc.ports.Cache`; Redis' own ``maxmemory`` bounds it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    @classmethod
    def at(cls, url: str) -> "RedisCache":
        """Return a cache in the Redis at *url*; connects lazily."""
        return cls(Redis.from_url(url, socket_timeout=0.5, socket_connect_timeout=0.5))

    async def get(self, key: str) -> bytes | None:
        [value] = await self.get_many([key])
        return value

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        if not keys:
            return []
        try:
            values: list[Any] = await self._redis.mget(keys)
        except (RedisError, OSError) as exc:
            log.warning("cache unavailable", fault=type(exc).__name__)
            return [None] * len(keys)
        return [value if isinstance(value, bytes) else None for value in values]

    async def put(self, key: str, value: bytes, ttl: timedelta) -> None:
        try:
            await self._redis.set(key, value, px=ttl)
        except (RedisError, OSError) as exc:
            log.warning("cache unavailable", fault=type(exc).__name__)

    async def drop(self, key: str) -> None:
        try:
            await self._redis.delete(key)
        except (RedisError, OSError) as exc:
            log.warning("cache unavailable", fault=type(exc).__name__)

    async def close(self) -> None:
        await self._redis.aclose()
