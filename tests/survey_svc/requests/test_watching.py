"""Change streams: first the state, then changes; prompt, bounded and resumable."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import grpc
import pytest
from amarre.survey.v1 import survey_pb2 as pb
from amarre.survey.v1 import survey_service_pb2 as messages

from mesh.chassis.background import background
from mesh.chassis.errors import RateLimitedError, UnavailableError
from survey_svc.errors import InvalidRowError
from survey_svc.requests import watching as module
from survey_svc.requests.listing import Listing
from survey_svc.requests.misses import Misses
from survey_svc.requests.rules import Row
from survey_svc.requests.watching import Event, Kind, Watching
from survey_svc.storage.memory_cache import MemoryCache
from survey_svc.study.profile import Profile
from survey_svc.study.study import Study
from tests.limits import refusals
from tests.survey_svc.fakes import FakeProject
from tests.survey_svc.sandbox import Sandbox
from tests.survey_svc.world import World, reason_of

SOON_SECONDS = 2.0
MOST_PER_USER, MOST = 5, 200


@pytest.fixture
def project(profile: Profile) -> FakeProject:
    """An empty REDCap project."""
    return FakeProject(profile)


async def _watching(profile: Profile, project: FakeProject) -> Watching:
    study = Study(profile, project)
    await study.check()
    listing = Listing(study, project, MemoryCache(), Misses(30))
    return Watching(profile, project, listing, per_user=MOST_PER_USER, total=MOST)


@pytest.fixture
async def watching(
    profile: Profile, project: FakeProject, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Watching]:
    """A watching with a short poll interval."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    watching = await _watching(profile, project)
    async with background("watch requests", watching.run):
        yield watching


async def _next(events: AsyncGenerator[Event]) -> Event:
    return await asyncio.wait_for(anext(events), SOON_SECONDS)


async def _next_news(events: AsyncGenerator[Event]) -> Event:
    """Return the next event that is not a heartbeat."""
    while True:
        event = await _next(events)
        if event.kind is not Kind.HEARTBEAT:
            return event


async def _store(project: FakeProject, record: str, **values: str) -> None:
    await project.save({"record_id": record, "userid": "ada", "created_at": "2026-01-01", **values})


def _said(event: Event) -> tuple[Kind, str]:
    return event.kind, event.request.id if event.request else event.removed


class TestEvents:
    async def test_current_then_changes(self, watching: Watching, project: FakeProject) -> None:
        """The current requests come first, then changes and removals."""
        await _store(project, "r1")
        async with aclosing(watching.watch("ada", "")) as events:
            first = await _next(events)
            await _store(project, "r1", form_complete="2")
            second = await _next(events)
            await _store(project, "r2")
            third = await _next(events)
            del project.stored["r1"]
            fourth = await _next(events)

        assert [Kind.CURRENT, Kind.CHANGED, Kind.CURRENT, Kind.REMOVED] == [
            event.kind for event in (first, second, third, fourth)
        ]
        assert second.request is not None
        assert second.request.steps[0].state.name == "DONE"
        assert "r1" == fourth.removed
        assert 4 == len({event.id for event in (first, second, third, fourth)})

    async def test_resumes(self, watching: Watching, project: FakeProject) -> None:
        """A client that reconnects with the last event id gets only later changes."""
        for record in ("r1", "r2", "r3"):
            await _store(project, record)
        async with aclosing(watching.watch("ada", "")) as events:
            seen = [await _next(events) for _ in range(3)]
        del project.stored["r1"]
        await _store(project, "r2", invite_nom="Bo")
        await asyncio.sleep(0)

        async with aclosing(watching.watch("ada", seen[-1].id)) as events:
            changes = {_said(await _next_news(events)) for _ in range(2)}

        assert {(Kind.CHANGED, "r2"), (Kind.REMOVED, "r1")} == changes

    async def test_resumes_in_the_middle(self, watching: Watching, project: FakeProject) -> None:
        """A client that disconnected during the first events gets the remaining ones."""
        await _store(project, "r1")
        await _store(project, "r2")
        async with aclosing(watching.watch("ada", "")) as events:
            first = await _next(events)

        async with aclosing(watching.watch("ada", first.id)) as events:
            second = await _next(events)

        assert first.request is not None
        assert second.request is not None
        assert {"r1", "r2"} == {first.request.id, second.request.id}

    async def test_resumes_elsewhere(
        self, watching: Watching, profile: Profile, project: FakeProject
    ) -> None:
        """Another replica recognizes a client that has seen everything, and only that one."""
        await _store(project, "r1")
        async with aclosing(watching.watch("ada", "")) as events:
            seen = await _next(events)
        other = await _watching(profile, project)

        async with aclosing(other.watch("ada", seen.id)) as events:
            nothing = await _next(events)
        async with aclosing(other.watch("ada", "unknown")) as events:
            everything = [await _next(events) for _ in range(2)]

        assert Kind.HEARTBEAT is nothing.kind
        assert [Kind.RESET, Kind.CURRENT] == [event.kind for event in everything[:2]]
        assert everything[0].id
        assert everything[0].request is None

    async def test_deleted_while_unknown(self, watching: Watching, project: FakeProject) -> None:
        """After an unknown id, one RESET makes the client drop deleted requests (C6)."""
        await _store(project, "r1")
        async with aclosing(watching.watch("ada", "")) as events:
            seen = await _next(events)
        watching._views.clear()
        del project.stored["r1"]
        await watching._listing.forget("ada")

        async with aclosing(watching.watch("ada", seen.id)) as events:
            first = await _next(events)

        assert Kind.RESET is first.kind
        async with aclosing(watching.watch("ada", first.id)) as events:
            assert Kind.HEARTBEAT is (await _next(events)).kind

    async def test_id_of_another_user(self, watching: Watching, project: FakeProject) -> None:
        """Another user's event id is unknown: nothing about their requests is revealed (H4)."""
        await _store(project, "r1")
        async with aclosing(watching.watch("ada", "")) as events:
            seen = await _next(events)

        async with aclosing(watching.watch("eve", seen.id)) as events:
            first = await _next(events)

        assert (Kind.RESET, None, "") == (first.kind, first.request, first.removed)
        assert seen.id != first.id

    async def test_heartbeat(self, watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without changes there are heartbeats, without id."""
        monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.02)
        async with aclosing(watching.watch("ada", "")) as events:
            beats = [await _next(events) for _ in range(3)]

        assert [Event(Kind.HEARTBEAT)] * 3 == beats

    async def test_outage_delays(self, watching: Watching, project: FakeProject) -> None:
        """While REDCap is unavailable, streams stay open; changes arrive when it is back."""
        await _store(project, "r1")
        async with aclosing(watching.watch("ada", "")) as events:
            await _next(events)
            project.unavailable = 3
            await _store(project, "r1", invite_nom="Bo")

            assert Kind.CHANGED is (await _next(events)).kind

    async def test_outage_at_the_beginning(self, watching: Watching, project: FakeProject) -> None:
        """A stream that cannot read the current state does not start."""
        project.unavailable = -1

        with pytest.raises(UnavailableError):
            await _next(watching.watch("ada", ""))

    async def test_incomplete_export(self, watching: Watching, project: FakeProject) -> None:
        """A record that an export lacks is not removed while REDCap returns it by its id."""
        for record in ("r1", "r2"):
            await _store(project, record)
        async with aclosing(watching.watch("ada", "")) as events:
            for _ in range(2):
                await _next(events)
            project.omitted = {"r1", "r2"}
            # As if the cache had been filled by another replica, which does not know them.
            await watching._listing.present("ada", [])
            await _store(project, "r1", form_complete="2")
            changed = await _next(events)
            del project.stored["r2"]
            removed = await _next(events)

        assert [(Kind.CHANGED, "r1"), (Kind.REMOVED, "r2")] == [_said(changed), _said(removed)]

    async def test_unreadable_row(self, watching: Watching, project: FakeProject) -> None:
        """An invalid row delays only its own user's events."""
        rows = project.rows

        async def unreadable(users: Sequence[str]) -> list[Row]:
            if "eve" in users:
                raise InvalidRowError("bad row")
            return await rows(users)

        others = [f"user{number}" for number in range(5)]
        streams = [watching.watch(user, "") for user in ("ada", "eve", *others)]
        for stream in streams:
            await _next(stream)
        project.rows = unreadable  # type: ignore[method-assign]
        await _store(project, "r1")

        assert Kind.CURRENT is (await _next_news(streams[0])).kind
        for stream in streams:
            await stream.aclose()


class TestBounds:
    async def test_per_user(self, watching: Watching, project: FakeProject) -> None:
        """A user has a limited number of streams; one more is rejected until one is closed."""
        await _store(project, "r1")
        streams = [watching.watch("ada", "") for _ in range(MOST_PER_USER)]
        for stream in streams:
            await _next(stream)

        before = refusals("watches_per_user")
        with pytest.raises(RateLimitedError):
            await _next(watching.watch("ada", ""))
        assert before + 1 == refusals("watches_per_user")
        await streams[0].aclose()
        again = watching.watch("ada", "")
        await _next(again)

        for stream in [*streams, again]:
            await stream.aclose()

    async def test_all_together(self, watching: Watching, project: FakeProject) -> None:
        """
        All users together have a limited number of streams; it counts as the mesh's fault, not the
        user's.
        """
        await _store(project, "r1")
        streams = [watching.watch(f"user{number}", "") for number in range(MOST)]
        for stream in streams:
            await _next(stream)

        before = refusals("watches_total")
        with pytest.raises(UnavailableError) as ei:
            await _next(watching.watch("ada", ""))

        assert before + 1 == refusals("watches_total")
        assert ei.value.retry_after is not None
        for stream in streams:
            await stream.aclose()

    async def test_one_look_for_all(self, watching: Watching, project: FakeProject) -> None:
        """REDCap is called once per poll, whatever the number of watchers."""
        streams = [watching.watch(f"user{n}", "") for n in range(20)]
        for stream in streams:
            await _next(stream)
        before = project.reads
        await watching._look()

        # On a slow machine the watch may have looked by itself meanwhile.
        assert project.reads - before in {1, 2}
        for stream in streams:
            await stream.aclose()

    async def test_idle(self, watching: Watching, project: FakeProject) -> None:
        """Without watchers, REDCap is not called."""
        async with aclosing(watching.watch("ada", "")) as events:
            await _next(events)

        assert {} == watching._watched


class TestService:
    async def test_change_within_two_seconds(
        self, world: World, sandbox: Sandbox, user: str
    ) -> None:
        """A change in REDCap is on the stream within 2 s."""
        created = await world.create(user)
        stream = world.stub.WatchRequests(
            messages.WatchRequestsRequest(), metadata=world.as_user(user)
        )
        first = await stream.read()
        sandbox.save({"record_id": created.id, "form_complete": "2"})
        changed_at = time.monotonic()
        second = await _until(stream, pb.CHANGE_KIND_CHANGED)
        took = time.monotonic() - changed_at
        stream.cancel()

        assert created.id == first.change.request.id
        assert pb.STEP_STATE_DONE == second.change.request.steps[0].state
        assert second.event_id not in {"", first.event_id}
        assert SOON_SECONDS > took

    async def test_other_users_see_nothing(self, world: World, sandbox: Sandbox, user: str) -> None:
        """A change of one user is not on another's stream, whatever REDCap does with filters."""
        sandbox.fault(mode="ignore_filter")
        stream = world.stub.WatchRequests(
            messages.WatchRequestsRequest(), metadata=world.as_user(f"{user}x")
        )
        first = await stream.read()
        await world.create(user)
        own = world.stub.WatchRequests(
            messages.WatchRequestsRequest(), metadata=world.as_user(user)
        )
        seen = await own.read()
        stream.cancel()
        own.cancel()

        assert pb.CHANGE_KIND_UNSPECIFIED == first.change.kind
        assert pb.CHANGE_KIND_CURRENT == seen.change.kind

    async def test_too_many(self, world: World, user: str) -> None:
        """A stream above the limit is RATE_LIMITED."""
        streams = []
        for _ in range(MOST_PER_USER):
            streams.append(
                world.stub.WatchRequests(
                    messages.WatchRequestsRequest(), metadata=world.as_user(user)
                )
            )
            await streams[-1].read()
        extra = world.stub.WatchRequests(
            messages.WatchRequestsRequest(), metadata=world.as_user(user)
        )

        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await extra.read()

        assert "RATE_LIMITED" == reason_of(ei.value)
        for stream in streams:
            stream.cancel()


async def _until(stream: Any, kind: int) -> messages.WatchRequestsResponse:
    while True:
        event: messages.WatchRequestsResponse = await stream.read()
        if event.change.kind == kind:
            return event
