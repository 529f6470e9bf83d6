"""Token buckets of the rate limits, shared by all replicas."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import case

from auth_svc.ports import Allowance, Exceeded
from auth_svc.storage.database import Database
from auth_svc.storage.tables import buckets

_MILLISECOND = timedelta(milliseconds=1)


class SqlCounters:
    """
    Implements the port ``Counters``: one row per key.

    A row stores when its bucket will be full again, in milliseconds since 1970. Each hit advances
    that time by ``window / hits``; a hit that would advance it beyond ``window`` from now is
    rejected (the generic cell rate algorithm, ITU-T I.371).
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, allowances: Sequence[Allowance], *, now: datetime) -> Exceeded | None:
        """Count in one transaction, which is rolled back if an allowance is exhausted."""
        now_ms = int(now.timestamp() * 1000)
        try:
            async with self._database.transaction() as connection:
                for allowance in allowances:
                    statement = self._one_more(allowance, now_ms)
                    full_at: int = (await connection.execute(statement)).scalar_one()
                    excess = (full_at - now_ms) * _MILLISECOND - allowance.window
                    if excess > timedelta(0):
                        raise _UsedUpError(Exceeded(allowance, excess))
        except _UsedUpError as used_up:
            return used_up.exceeded
        return None

    def _one_more(self, allowance: Allowance, now_ms: int) -> Any:
        """Return the statement that counts atomically, so that no concurrent hit is lost."""
        interval = allowance.window // _MILLISECOND // allowance.hits
        known = buckets.c.full_at
        return (
            self._database.insert(buckets)
            .values(key=allowance.key, full_at=now_ms + interval)
            .on_conflict_do_update(
                index_elements=["key"],
                set_={"full_at": case((known > now_ms, known), else_=now_ms) + interval},
            )
            .returning(buckets.c.full_at)
        )


class _UsedUpError(Exception):
    """Rolls back the transaction."""

    def __init__(self, exceeded: Exceeded) -> None:
        super().__init__("an allowance is used up")
        self.exceeded = exceeded
