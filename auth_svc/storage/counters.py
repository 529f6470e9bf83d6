"""Counters of the rate limits, shared by all replicas."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import case, literal

from auth_svc.ports import Allowance, Exceeded
from auth_svc.storage.database import Database
from auth_svc.storage.tables import counters


class SqlCounters:
    """Counters, one row per key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, allowances: Sequence[Allowance], *, now: datetime) -> Exceeded | None:
        """Count in one transaction, which is rolled back when an allowance is used up."""
        try:
            async with self._database.transaction() as connection:
                for allowance in allowances:
                    statement = self._one_more(allowance, now)
                    hits, since = (await connection.execute(statement)).one()
                    if hits > allowance.hits:
                        raise _UsedUpError(Exceeded(allowance, since))
        except _UsedUpError as used_up:
            return used_up.exceeded
        return None

    def _one_more(self, allowance: Allowance, now: datetime) -> Any:
        """Return the one statement that counts, so that no hit of parallel callers is lost."""
        over = counters.c.since <= now - allowance.window
        fresh = literal(now, counters.c.since.type)
        return (
            self._database.insert(counters)
            .values(key=allowance.key, hits=1, since=now)
            .on_conflict_do_update(
                index_elements=["key"],
                set_={
                    "hits": case((over, 1), else_=counters.c.hits + 1),
                    "since": case((over, fresh), else_=counters.c.since),
                },
            )
            .returning(counters.c.hits, counters.c.since)
        )


class _UsedUpError(Exception):
    """Leaves the transaction, so that nothing of it stays."""

    def __init__(self, exceeded: Exceeded) -> None:
        super().__init__("an allowance is used up")
        self.exceeded = exceeded
