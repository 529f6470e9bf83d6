"""A user's requests: one export for any number of them, links remembered, shared by all who ask.

What REDCap says is kept for `FRESH`, so that bursts cost one call; a creation drops it.
"""

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import structlog
from prometheus_client import Counter

from mesh.chassis.errors import InvalidRequestError, NotFoundError, UpstreamError, Violation
from survey_svc.ports import Cache, Project
from survey_svc.requests.rules import Request, Row, Step, StepKind, StepState, derive, newest_first
from survey_svc.study.dictionary import Dictionary
from survey_svc.study.study import Study

log = structlog.get_logger("listing")

LOOK_UPS = Counter("amarre_survey_cache_lookups", "Look-ups in the cache.", ["content", "outcome"])

FRESH = timedelta(seconds=2)
"""How old what a user is shown may be."""
LINKS_KEPT = timedelta(hours=24)
"""A link never changes once it exists; forgetting costs a call."""
PARALLEL_LINKS = 8

MOST_SHOWN = 512
"""For how many users what was made of their rows is kept."""

_Key = tuple[str, str]
"""A record and an instrument."""
_Basis = tuple[list[Row], Dictionary]
"""What requests are made from."""


class Listing:
    """Answers what requests a user has, and whether a record is theirs."""

    def __init__(self, study: Study, project: Project, cache: Cache, *, scope: str = "") -> None:
        """Make a listing.

        Args:
            study: The study being served.
            project: Its REDCap project.
            cache: Where rows and links are kept; may be shared by replicas.
            scope: Tells projects apart that share a cache.
        """
        self._study = study
        self._project = project
        self._cache = cache
        self._scope = scope
        self._flights: dict[str, asyncio.Task[list[Row]]] = {}
        self._shown: OrderedDict[str, tuple[_Basis, Sequence[Request]]] = OrderedDict()
        self._writes = 0
        self._written: OrderedDict[str, int] = OrderedDict()
        self._links = asyncio.Semaphore(PARALLEL_LINKS)

    async def requests(self, user: str) -> Sequence[Request]:
        """Return the user's requests, newest first, with links on what is theirs to do."""
        return await self.present(user, await self.rows(user))

    async def present(self, user: str, rows: list[Row]) -> Sequence[Request]:
        """
        Return the requests in *rows* of *user*, newest first, with links on what is theirs to do.

        As long as nothing is different it is the same object, so that others can build on it.
        """
        basis = rows, self._study.dictionary
        shown = self._shown.get(user)
        if shown is None or shown[0] != basis:
            shown = basis, await self._derive(rows)
            self._shown[user] = shown
        self._shown.move_to_end(user)
        if len(self._shown) > MOST_SHOWN:
            self._shown.popitem(last=False)
        return shown[1]

    async def _derive(self, rows: list[Row]) -> Sequence[Request]:
        label = self._study.dictionary.label
        requests = newest_first([derive(self._study.profile, row, label) for row in rows])
        links = await self._links_of(
            [(request.id, step.instrument) for request in requests for step in _to_do(request)]
        )
        return [
            replace(request, steps=tuple(_linked(request, step, links) for step in request.steps))
            for request in requests
        ]

    async def rows(self, user: str, *, now: bool = False) -> list[Row]:
        """Return the user's records, as codes; with *now* REDCap is asked whatever is kept."""
        flight = None
        if not now:
            kept = await self._cache.get(self._rows_key(user))
            LOOK_UPS.labels("rows", "miss" if kept is None else "hit").inc()
            if kept is not None:
                return list(json.loads(kept))
            flight = self._flights.get(user)
        # The flight goes on for others when one who waits for it gives up.
        return await asyncio.shield(flight or self._take_off(user))

    def writes(self) -> int:
        """Return how many changes of ours there were; says to `keep` how old rows are."""
        return self._writes

    async def keep(self, user: str, rows: list[Row], *, since: int) -> None:
        """Keep what REDCap says of *user*, unless they wrote *since* it was asked."""
        if self._written.get(user, 0) <= since:
            await self._cache.put(self._rows_key(user), json.dumps(rows).encode(), FRESH)

    async def forget(self, user: str) -> None:
        """Drop what is kept of *user*: it has changed."""
        self._writes += 1
        self._written[user] = self._writes
        if len(self._written) > MOST_SHOWN:
            self._written.popitem(last=False)
        self._flights.pop(user, None)
        await self._cache.drop(self._rows_key(user))

    async def require_own(self, user: str, record: str) -> None:
        """Return when *record* is the user's.

        Raises:
            NotFoundError: It is absent or somebody else's; which one is not told.
        """
        name = self._study.profile.variables.record
        for now in (False, True):
            if any(row[name] == record for row in await self.rows(user, now=now)):
                return
        raise NotFoundError("There is no such request.")

    async def link(self, user: str, record: str, instrument: str) -> str:
        """Return the survey link of an instrument of the user's request.

        Raises:
            NotFoundError: The record is not the user's, whatever else is wrong.
            InvalidRequestError: The instrument is not the applicant's to fill.
        """
        await self.require_own(user, record)
        applicants = self._study.profile.applicants
        if instrument not in applicants:
            accepted = " or ".join(applicants)
            raise InvalidRequestError(
                f"The instrument is not the applicant's; ask for {accepted}.",
                violations=[Violation("instrument", f"must be {accepted}", "applicants")],
            )
        return (await self._links_of([(record, instrument)]))[record, instrument]

    def _take_off(self, user: str) -> asyncio.Task[list[Row]]:
        flight = asyncio.create_task(self._fetch(user))
        self._flights[user] = flight
        flight.add_done_callback(lambda done: self._land(user, done))
        return flight

    def _land(self, user: str, flight: asyncio.Task[list[Row]]) -> None:
        if self._flights.get(user) is flight:
            del self._flights[user]
        if not flight.cancelled():
            flight.exception()  # Whoever waits gets it; that nobody does is no fault.

    async def _fetch(self, user: str) -> list[Row]:
        since = self.writes()
        rows = await self._project.rows([user])
        await self.keep(user, rows, since=since)
        return rows

    async def _links_of(self, keys: list[_Key]) -> Mapping[_Key, str]:
        """Return the link of every key: from the cache, a list per instrument, or one by one."""
        kept = await self._cache.get_many([self._link_key(key) for key in keys])
        found = {key: link.decode() for key, link in zip(keys, kept, strict=True) if link}
        missing = [key for key in keys if key not in found]
        LOOK_UPS.labels("links", "hit").inc(len(found))
        LOOK_UPS.labels("links", "miss").inc(len(missing))
        fetched: dict[_Key, str] = {}
        for instrument in {instrument for _, instrument in missing}:
            records = {record for record, of in missing if of == instrument}
            if len(records) > 1:
                listed = await self._listed(instrument)
                fetched |= {(record, instrument): listed[record] for record in records & {*listed}}
        alone = [key for key in missing if key not in fetched]
        links = await asyncio.gather(*(self._ask(key) for key in alone))
        fetched |= zip(alone, links, strict=True)
        for key, link in fetched.items():
            await self._cache.put(self._link_key(key), link.encode(), LINKS_KEPT)
        return found | fetched

    async def _listed(self, instrument: str) -> Mapping[str, str]:
        try:
            return await self._project.links(instrument)
        except UpstreamError as fault:
            # No right to the list, or a list beyond bounds: links can be asked for one by one.
            log.warning("no participant list", instrument=instrument, fault=type(fault).__name__)
            return {}

    async def _ask(self, key: _Key) -> str:
        async with self._links:
            return await self._project.link(*key)

    def _rows_key(self, user: str) -> str:
        return self._key("rows", user)

    def _link_key(self, key: _Key) -> str:
        return self._key("link", *key)

    def _key(self, kind: str, *parts: str) -> str:
        # Ids are not readable in a cache that others may look into.
        digest = hashlib.sha256(json.dumps([self._scope, *parts]).encode()).hexdigest()
        return f"amarre:survey:{kind}:{digest}"


def _to_do(request: Request) -> list[Step]:
    return [
        step
        for step in request.steps
        if step.state is StepState.TO_DO and step.kind is not StepKind.OPINION
    ]


def _linked(request: Request, step: Step, links: Mapping[_Key, str]) -> Step:
    link = links.get((request.id, step.instrument))
    return replace(step, url=link) if link else step
