"""A user's requests: one export for any number of them, shared by concurrent callers.

REDCap's response is cached for `FRESH`, so that bursts cost one call; a creation invalidates it.
Derived data is cached as long as the response is identical.
"""

import json
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial

import structlog

from mesh.chassis.errors import InvalidRequestError, NotFoundError, Violation
from survey_svc.ports import Cache, Project
from survey_svc.requests.cache_keys import CacheKeys
from survey_svc.requests.links import LOOK_UPS, LinkKey, Links
from survey_svc.requests.misses import Misses
from survey_svc.requests.rules import (
    Request,
    Row,
    Step,
    StepKind,
    StepState,
    derive,
    newest_first,
)
from survey_svc.requests.shared_calls import SharedCalls
from survey_svc.study.dictionary import Dictionary
from survey_svc.study.study import Study

log = structlog.get_logger("listing")

FRESH = timedelta(seconds=2)
"""Maximum age of displayed data."""

MAX_USERS = 512
"""Number of users whose derived data is cached."""


class _Snapshot:
    """A user's rows at one time, and the requests derived from them on demand."""

    def __init__(self, raw: bytes, rows: list[Row], record_column: str) -> None:
        self.raw = raw
        self.rows = rows
        self.records = frozenset(row[record_column] for row in rows)
        self.dictionary: Dictionary | None = None
        self.requests: Sequence[Request] = ()


class Listing:
    """Lists a user's requests, and checks ownership of records."""

    def __init__(
        self,
        study: Study,
        project: Project,
        cache: Cache,
        misses: Misses,
        *,
        scope: str = "",
    ) -> None:
        """Create a listing.

        Args:
            study: The study being served.
            project: Its REDCap project.
            cache: Cache of rows and links; may be shared by replicas.
            misses: Limits how many unknown ids a user may name.
            scope: Separates projects that share a cache.
        """
        self._study = study
        self._project = project
        self._cache = cache
        self._keys = CacheKeys(scope)
        self._links = Links(project, cache, self._keys)
        self._misses = misses
        self._exports: SharedCalls[_Snapshot] = SharedCalls()
        self._snapshots: OrderedDict[str, _Snapshot] = OrderedDict()
        self._writes = 0
        self._written: OrderedDict[str, int] = OrderedDict()

    async def requests(self, user: str) -> Sequence[Request]:
        """Return the user's requests, newest first, with links for their open steps.

        Returns the same object while nothing has changed, so that callers can cache derived data.
        """
        return await self._present(await self._snapshot(user))

    async def with_omitted(
        self, user: str, rows: list[Row], known: Collection[str] = ()
    ) -> list[Row]:
        """Return *rows* of an export, with the records that it lacks but REDCap still has.

        Asks for those of the last snapshot, and of *known*.

        An export can omit records without an error. Only what REDCap says about a record by its id
        counts as its removal; otherwise watchers would see it removed, and the user could create a
        second request.
        """
        last = self._snapshots.get(user)
        name = self._study.profile.variables.record
        omitted = {*known, *(last.records if last else ())} - {row[name] for row in rows}
        if not omitted:
            return rows
        found = await self._project.rows_by_id(user, sorted(omitted))
        if found:
            log.warning("export lacked records", missing=len(found))
        return rows + found

    async def present(self, user: str, rows: list[Row]) -> Sequence[Request]:
        """Return the requests in *rows* of *user*, as `requests` does."""
        return await self._present(self._remember(user, _dump(rows), rows))

    async def rows(self, user: str, *, now: bool = False) -> list[Row]:
        """Return the user's records as codes; with *now*, bypass the cache."""
        return (await self._snapshot(user, now=now)).rows

    def writes(self) -> int:
        """Return the number of writes so far; `keep` uses it to recognize stale rows."""
        return self._writes

    async def keep(self, user: str, rows: list[Row], *, since: int) -> None:
        """Cache REDCap's response about *user*, unless the user has written *since*."""
        await self._keep(user, _dump(rows), since=since)

    async def forget(self, user: str) -> None:
        """Drop cached data of *user* after a write."""
        self._writes += 1
        self._written[user] = self._writes
        if len(self._written) > MAX_USERS:
            self._written.popitem(last=False)
        self._exports.forget(user)
        await self._cache.drop(self._keys.rows(user))

    async def require_own(self, user: str, record: str) -> None:
        """Return normally if *record* is the user's.

        Raises:
            NotFoundError: It does not exist or belongs to another user; the error is the same.
            RateLimitedError: The user has named too many unknown records.
        """
        if record in (await self._snapshot(user)).records:
            return
        if not self._misses.is_remembered(user, record):
            # Another replica may have created it a moment ago.
            if record in (await self._snapshot(user, now=True)).records:
                return
            self._misses.remember(user, record)
        raise NotFoundError("There is no such request.")

    async def link(self, user: str, record: str, instrument: str) -> str:
        """Return the survey link of an instrument of the user's request.

        Raises:
            NotFoundError: The record is not the user's; checked first.
            InvalidRequestError: The instrument is not one of the applicant's.
        """
        await self.require_own(user, record)
        applicants = self._study.profile.applicants
        if instrument not in applicants:
            accepted = " or ".join(applicants)
            raise InvalidRequestError(
                f"The instrument is not the applicant's; use {accepted}.",
                violations=[Violation("instrument", f"must be {accepted}", "applicants")],
            )
        return (await self._links.of([(record, instrument)]))[record, instrument]

    async def _snapshot(self, user: str, *, now: bool = False) -> _Snapshot:
        if not now:
            kept = await self._cache.get(self._keys.rows(user))
            LOOK_UPS.labels("rows", "miss" if kept is None else "hit").inc()
            if kept is not None:
                return self._remember(user, kept)
        return await self._exports.run(user, partial(self._export, user), fresh=now)

    async def _export(self, user: str) -> _Snapshot:
        since = self.writes()
        rows = await self.with_omitted(user, await self._project.rows([user]))
        raw = _dump(rows)
        await self._keep(user, raw, since=since)
        return self._remember(user, raw, rows)

    async def _keep(self, user: str, raw: bytes, *, since: int) -> None:
        if self._written.get(user, 0) <= since:
            await self._cache.put(self._keys.rows(user), raw, FRESH)

    def _remember(self, user: str, raw: bytes, rows: list[Row] | None = None) -> _Snapshot:
        """Return the snapshot of *raw*: the last one if nothing has changed."""
        snapshot = self._snapshots.get(user)
        if snapshot is None or (snapshot.raw is not raw and snapshot.raw != raw):
            parsed = list(json.loads(raw)) if rows is None else rows
            snapshot = _Snapshot(raw, parsed, self._study.profile.variables.record)
            self._snapshots[user] = snapshot
        self._snapshots.move_to_end(user)
        if len(self._snapshots) > MAX_USERS:
            self._snapshots.popitem(last=False)
        return snapshot

    async def _present(self, snapshot: _Snapshot) -> Sequence[Request]:
        dictionary = self._study.dictionary
        # The study returns the same dictionary object while it is unchanged.
        if snapshot.dictionary is not dictionary:
            snapshot.requests = await self._derive(snapshot.rows, dictionary)
            snapshot.dictionary = dictionary
        return snapshot.requests

    async def _derive(self, rows: list[Row], dictionary: Dictionary) -> Sequence[Request]:
        profile = self._study.profile
        requests = newest_first([derive(profile, row, dictionary.label) for row in rows])
        links = await self._links.of(
            [(request.id, step.instrument) for request in requests for step in _to_do(request)]
        )
        return [
            replace(request, steps=tuple(_linked(request, step, links) for step in request.steps))
            for request in requests
        ]


def _dump(rows: list[Row]) -> bytes:
    return json.dumps(rows).encode()


def _to_do(request: Request) -> list[Step]:
    return [
        step
        for step in request.steps
        if step.state is StepState.TO_DO and step.kind is not StepKind.OPINION
    ]


def _linked(request: Request, step: Step, links: Mapping[LinkKey, str]) -> Step:
    link = links.get((request.id, step.instrument))
    return replace(step, url=link) if link else step
