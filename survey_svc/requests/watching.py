"""Change streams, with one export per second for all watchers together.

An event id identifies the state that a client knows. States are cached per user for a while, so
that a reconnecting client gets the difference; after an unknown id it gets a reset event and all
requests again.
"""

import asyncio
import contextlib
import hashlib
import json
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto

import structlog
from prometheus_client import Gauge

from mesh.chassis.errors import MeshError, RateLimitedError, UnavailableError
from mesh.chassis.telemetry.metrics import LIMIT_REFUSALS
from survey_svc.errors import InvalidRowError
from survey_svc.ports import Project
from survey_svc.requests.listing import Listing
from survey_svc.requests.rules import Request, Row
from survey_svc.study.profile import Profile

log = structlog.get_logger("watching")

POLL_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0
RETRY_AFTER = timedelta(seconds=30)
USERS_PER_EXPORT = 50
"""The number of users per export: as many as fit into a filter of a few kilobytes."""
VIEWS_KEPT = 4096

WATCHERS = Gauge("amarre_survey_watchers", "Open streams of changes.")

View = Mapping[str, str]
"""The state that a client knows: the digest of each request by its id."""


class Kind(Enum):
    """The kind of an event."""

    HEARTBEAT = auto()
    RESET = auto()
    CURRENT = auto()
    CHANGED = auto()
    REMOVED = auto()


@dataclass(frozen=True)
class Event:
    """One event; a heartbeat has neither id nor request, a reset has no request."""

    kind: Kind
    id: str = ""
    request: Request | None = None
    removed: str = ""


class _Watched:
    """A user with watchers: the current requests, and an event for changes."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = requests
        self.changed = asyncio.Event()

    def publish(self, requests: Sequence[Request]) -> None:
        if requests != self.requests:
            self.requests = requests
            self.changed.set()
            self.changed = asyncio.Event()


class Watching:
    """Polls REDCap for all watchers; `run` is a supervised background task."""

    def __init__(
        self,
        profile: Profile,
        project: Project,
        listing: Listing,
        *,
        per_user: int,
        total: int,
    ) -> None:
        """Watch for at most *per_user* streams of a user, and *total* of all."""
        self._user_variable = profile.variables.user
        self._project = project
        self._listing = listing
        self._watched: dict[str, _Watched] = {}
        self._watchers: Counter[str] = Counter()
        self._views: OrderedDict[tuple[str, str], View] = OrderedDict()
        self._some = asyncio.Event()
        self._per_user, self._total = per_user, total

    async def watch(self, user: str, last_event_id: str) -> AsyncGenerator[Event]:
        """Yield the current requests, then every change, and heartbeats.

        Args:
            user: Whose requests.
            last_event_id: The last event that the client received; empty: send all requests.

        Raises:
            RateLimitedError, UnavailableError: The user, or all users, have too many streams open.
            MeshError: REDCap is unavailable at the start. Later, an outage only delays events.
        """
        with self._admitted(user):
            watched = self._watched.get(user)
            if watched is None:
                requests = await self._listing.requests(user)
                watched = self._watched.setdefault(user, _Watched(requests))
            self._some.set()
            known = self._known(user, last_event_id, watched.requests)
            view: View = known or {}
            silent = True
            if known is None:
                silent = False
                yield Event(Kind.RESET, self._name(user, view))
            while True:
                changed = watched.changed
                for event in _difference(view, watched.requests):
                    view = _after(view, event)
                    silent = False
                    yield Event(event.kind, self._name(user, view), event.request, event.removed)
                if silent:
                    yield Event(Kind.HEARTBEAT)
                silent = not await _within(HEARTBEAT_SECONDS, changed)

    @contextlib.contextmanager
    def _admitted(self, user: str) -> Iterator[None]:
        if self._watchers[user] >= self._per_user:
            LIMIT_REFUSALS.labels("watches_per_user").inc()
            raise RateLimitedError(
                "Too many event streams are open; close another window or request the list.",
                retry_after=RETRY_AFTER,
            )
        if self._watchers.total() >= self._total:
            LIMIT_REFUSALS.labels("watches_total").inc()
            raise UnavailableError("Too many event streams are open.", retry_after=RETRY_AFTER)
        self._watchers[user] += 1
        WATCHERS.inc()
        try:
            yield
        finally:
            WATCHERS.dec()
            self._watchers[user] -= 1
            if not self._watchers[user]:
                del self._watchers[user]
                self._watched.pop(user, None)

    async def run(self) -> None:
        """Poll for changes until cancelled; idle without watchers."""
        while True:
            if not self._watched:
                self._some.clear()
                await self._some.wait()
            try:
                await self._look()
            except MeshError as fault:
                log.warning("reading changes failed", fault=type(fault).__name__)
            await asyncio.sleep(POLL_SECONDS)

    async def _look(self) -> None:
        users = list(self._watched)
        for at in range(0, len(users), USERS_PER_EXPORT):
            await self._look_at(users[at : at + USERS_PER_EXPORT])

    async def _look_at(self, some: list[str]) -> None:
        """Poll some users with one export; an invalid row affects only its user."""
        try:
            await self._export(some)
        except InvalidRowError as fault:
            if len(some) == 1:
                log.warning("reading changes failed", fault=type(fault).__name__)
                return
            half = len(some) // 2
            await self._look_at(some[:half])
            await self._look_at(some[half:])

    async def _export(self, some: list[str]) -> None:
        rows: dict[str, list[Row]] = {user: [] for user in some}
        since = self._listing.writes()
        for row in await self._project.rows(some):
            rows[row[self._user_variable]].append(row)
        for user in some:
            watched = self._watched.get(user)
            known = [request.id for request in watched.requests] if watched else []
            try:
                found = await self._listing.with_omitted(user, rows[user], known)
                await self._listing.keep(user, found, since=since)
                requests = await self._listing.present(user, found)
            except MeshError as fault:  # About this user; the other users are not affected.
                log.warning("reading changes failed", fault=type(fault).__name__)
                continue
            watched = self._watched.get(user)
            if watched is not None:
                watched.publish(requests)

    def _known(self, user: str, event_id: str, requests: Sequence[Request]) -> View | None:
        """Return the state that the client knows; None if the id is not a recent one of *user*."""
        if not event_id:
            return {}
        current = {request.id: _digest(request) for request in requests}
        if event_id == _name(user, current):
            return current  # It is from another replica, or from before a restart.
        return self._views.get((user, event_id))

    def _name(self, user: str, view: View) -> str:
        name = _name(user, view)
        self._views[user, name] = view
        self._views.move_to_end((user, name))
        if len(self._views) > VIEWS_KEPT:
            self._views.popitem(last=False)
        return name


def _difference(view: View, requests: Sequence[Request]) -> list[Event]:
    """Return the events from *view* to *requests*, oldest request first, without ids."""
    events = [
        Event(Kind.CHANGED if request.id in view else Kind.CURRENT, request=request)
        for request in reversed(requests)
        if view.get(request.id) != _digest(request)
    ]
    gone = set(view) - {request.id for request in requests}
    return events + [Event(Kind.REMOVED, removed=record) for record in sorted(gone)]


def _after(view: View, event: Event) -> View:
    after = dict(view)
    if event.request is not None:
        after[event.request.id] = _digest(event.request)
    after.pop(event.removed, None)
    return after


def _digest(request: Request) -> str:
    return hashlib.sha256(repr(request).encode()).hexdigest()[:16]


def _name(user: str, view: View) -> str:
    return hashlib.sha256(json.dumps([user, view], sort_keys=True).encode()).hexdigest()[:32]


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Return whether *event* is set within *seconds*."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
