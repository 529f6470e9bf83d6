"""Survey links: from the cache, from one list per instrument, or individually."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial

import structlog
from prometheus_client import Counter

from mesh.chassis.errors import UpstreamError
from survey_svc.ports import Cache, Project
from survey_svc.requests.cache_keys import CacheKeys
from survey_svc.requests.shared_calls import SharedCalls

log = structlog.get_logger("links")

LOOK_UPS = Counter(
    "amarre_survey_cache_lookups", "Cache look-ups of rows and links.", ["content", "outcome"]
)

KEPT = timedelta(hours=24)
"""A link never changes once it exists; a cache miss costs a call."""
PARALLEL = 8

LinkKey = tuple[str, str]
"""A record and an instrument."""


class Links:
    """Finds and caches survey links."""

    def __init__(self, project: Project, cache: Cache, keys: CacheKeys) -> None:
        self._project = project
        self._cache = cache
        self._keys = keys
        self._slots = asyncio.Semaphore(PARALLEL)
        self._single: SharedCalls[str] = SharedCalls()
        self._lists: SharedCalls[Mapping[str, str]] = SharedCalls()

    async def of(self, wanted: Sequence[LinkKey]) -> Mapping[LinkKey, str]:
        """Return the link of every key."""
        kept = await self._cache.get_many([self._keys.link(*key) for key in wanted])
        found = {key: link.decode() for key, link in zip(wanted, kept, strict=True) if link}
        missing = [key for key in wanted if key not in found]
        LOOK_UPS.labels("links", "hit").inc(len(found))
        LOOK_UPS.labels("links", "miss").inc(len(missing))
        fetched: dict[LinkKey, str] = {}
        for instrument in {instrument for _, instrument in missing}:
            records = {record for record, of in missing if of == instrument}
            if len(records) > 1:
                listed = await self._lists.run(instrument, partial(self._list, instrument))
                fetched |= {(record, instrument): listed[record] for record in records & {*listed}}
        unlisted = [key for key in missing if key not in fetched]
        links = await asyncio.gather(
            *(self._single.run(self._keys.link(*key), partial(self._ask, key)) for key in unlisted)
        )
        fetched |= zip(unlisted, links, strict=True)
        for key, link in fetched.items():
            await self._cache.put(self._keys.link(*key), link.encode(), KEPT)
        return found | fetched

    async def _list(self, instrument: str) -> Mapping[str, str]:
        try:
            return await self._project.links(instrument)
        except UpstreamError as fault:
            # No permission for the list, or too long a list: request the links individually.
            log.warning(
                "participant list unavailable", instrument=instrument, fault=type(fault).__name__
            )
            return {}

    async def _ask(self, key: LinkKey) -> str:
        async with self._slots:
            return await self._project.link(*key)
