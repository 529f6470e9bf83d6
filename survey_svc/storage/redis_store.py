"""Reservation store in Redis; each method is one script and therefore atomic.

Redis must be durable (``appendonly yes``): without its reservation, a second request is possible.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from mesh.chassis.errors import UnavailableError
from survey_svc.ports import Answer, Claim, Consent, Reservation

# One hash tag: scripts use several keys, which must be in one slot of a Redis Cluster.
_PREFIX = "amarre:{survey}:"
_PLACES = f"{_PREFIX}places"
_CONSENTS = f"{_PREFIX}consents"

_CLAIM = """
local held = redis.call('HGETALL', KEYS[1])
if #held > 0 and tonumber(redis.call('HGET', KEYS[1], 'ends_at')) > tonumber(ARGV[1]) then
  return {'held', held}
end
local record = redis.call('HMGET', KEYS[1], 'record', 'created_at')
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
if #held > 0 then
  redis.call('HSET', KEYS[1], 'record', record[1], 'created_at', record[2])
end
redis.call('ZADD', KEYS[2], redis.call('HGET', KEYS[1], 'ends_at'), ARGV[2])
return {'taken', redis.call('HGETALL', KEYS[1]), held}
"""
_FREE = """
if redis.call('HGET', KEYS[1], 'record') == ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[2])
end
"""
_FINISH = (
    _FREE
    + """
redis.call('HSETNX', KEYS[3], ARGV[1], ARGV[3])
if ARGV[4] ~= '' then
  redis.call('SET', KEYS[4], ARGV[4], 'NX', 'PX', ARGV[5])
end
"""
)
_LET_GO = """
local held = redis.call('HMGET', KEYS[1], 'record', 'holder')
if held[1] == ARGV[1] and held[2] == ARGV[3] then
  redis.call('HSET', KEYS[1], 'ends_at', ARGV[4])
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[2])
end
"""


class RedisStore:
    """Implements `survey_svc.ports.Store`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._claim = redis.register_script(_CLAIM)
        self._free = redis.register_script(_FREE)
        self._finish = redis.register_script(_FINISH)
        self._let_go = redis.register_script(_LET_GO)

    @classmethod
    async def open(cls, url: str) -> "RedisStore":
        """Connect to the Redis at *url*.

        Raises:
            UnavailableError: Redis is unreachable.
        """
        redis = connect(url)
        try:
            async with _failures():
                await redis.get(_PLACES + ":probe")
        except BaseException:
            await redis.aclose()
            raise
        return cls(redis)

    async def close(self) -> None:
        await self._redis.aclose()

    async def claim(self, attempt: Reservation, now: datetime) -> Claim:
        fields = [text for pair in _to_fields(attempt).items() for text in pair]
        async with _failures():
            outcome, held, *before = await self._claim(
                keys=[_place(attempt.user), _PLACES], args=[_to_ms(now), attempt.user, *fields]
            )
        reservation = _from_fields(_pairs(held))
        if outcome == "held" or not before[0]:
            return Claim(reservation)
        return Claim(reservation, before=_from_fields(_pairs(before[0])))

    async def finish(self, reservation: Reservation, *, remember: timedelta) -> None:
        since = reservation.consented_at or reservation.created_at
        consent = {
            "user": reservation.user,
            "consented_at": _to_ms(since),
            "notice": reservation.notice,
        }
        answer = {
            "record": reservation.record,
            "input": reservation.input,
            "ends_at": _to_ms(since + remember),
        }
        async with _failures():
            await self._finish(
                keys=[
                    _place(reservation.user),
                    _PLACES,
                    _CONSENTS,
                    _answer(reservation.user, reservation.key),
                ],
                args=[
                    reservation.record,
                    reservation.user,
                    json.dumps(consent),
                    json.dumps(answer) if reservation.key else "",
                    round(remember.total_seconds() * 1000),
                ],
            )

    async def drop(self, reservation: Reservation) -> None:
        async with _failures():
            await self._free(
                keys=[_place(reservation.user), _PLACES],
                args=[reservation.record, reservation.user],
            )

    async def let_go(self, reservation: Reservation, now: datetime) -> None:
        ends_at = str(_to_ms(now))
        args = [reservation.record, reservation.user, reservation.holder, ends_at]
        async with _failures():
            await self._let_go(keys=[_place(reservation.user), _PLACES], args=args)

    async def answered(self, user: str, key: str, now: datetime) -> Answer | None:
        async with _failures():
            text = await self._redis.get(_answer(user, key))
        if text is None:
            return None
        answer = json.loads(text)
        if answer["ends_at"] <= _to_ms(now):
            return None
        return Answer(record=answer["record"], input=answer["input"])

    async def consent(self, record: str) -> Consent | None:
        async with _failures():
            text: Any = await self._redis.hget(_CONSENTS, record)
        if text is None:
            return None
        consent = json.loads(text)
        return Consent(consent["user"], _from_ms(consent["consented_at"]), consent["notice"])

    async def erase(self, user: str) -> int:
        # Not one script: it would block Redis while it goes through all consents.
        async with _failures():
            await self._redis.delete(_place(user))
            await self._redis.zrem(_PLACES, user)
            async for key in self._redis.scan_iter(f"{_PREFIX}answer:*"):
                if key.rpartition(":")[0] == _answer(user, "").rpartition(":")[0]:
                    await self._redis.delete(key)
            found = [
                record
                async for record, text in self._redis.hscan_iter(_CONSENTS)
                if json.loads(text)["user"] == user
            ]
            for record in found:
                await self._redis.hdel(_CONSENTS, record)
        return len(set(found))

    async def abandoned(self, now: datetime, *, limit: int = 100) -> list[Reservation]:
        async with _failures():
            users: Any = await self._redis.zrangebyscore(
                _PLACES, "-inf", _to_ms(now), start=0, num=limit
            )
            found: list[Any] = [await self._redis.hgetall(_place(user)) for user in users]
        return [_from_fields(fields) for fields in found if fields]


def connect(url: str) -> Redis:
    """Return a client with text responses and socket timeouts."""
    client: Redis = Redis.from_url(
        url, decode_responses=True, socket_timeout=3, socket_connect_timeout=2
    )
    return client


@contextlib.asynccontextmanager
async def _failures() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError) as exc:
        raise UnavailableError("The reservation store is unavailable.") from exc


def _place(user: str) -> str:
    return f"{_PREFIX}place:{user}"


def _answer(user: str, key: str) -> str:
    return f"{_PREFIX}answer:{user}:{key}"


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _to_fields(reservation: Reservation) -> dict[str, str]:
    consented_at = reservation.consented_at
    return {
        "user": reservation.user,
        "record": reservation.record,
        "created_at": str(_to_ms(reservation.created_at)),
        "holder": reservation.holder,
        "ends_at": str(_to_ms(reservation.ends_at)),
        "notice": reservation.notice,
        "consented_at": "" if consented_at is None else str(_to_ms(consented_at)),
        "key": reservation.key,
        "input": reservation.input,
    }


def _from_fields(fields: Mapping[str, str]) -> Reservation:
    consented_at = fields["consented_at"]
    return Reservation(
        user=fields["user"],
        record=fields["record"],
        created_at=_from_ms(fields["created_at"]),
        holder=fields["holder"],
        ends_at=_from_ms(fields["ends_at"]),
        notice=fields["notice"],
        consented_at=_from_ms(consented_at) if consented_at else None,
        key=fields["key"],
        input=fields["input"],
    )


def _to_ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _from_ms(milliseconds: str | int) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
