"""Creation under failures: crashes, lost responses, retries, disconnecting callers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from mesh.chassis.errors import UnavailableError
from mesh.chassis.testing import FakeClock
from survey_svc.errors import OpenRequestExistsError, RefusedError
from survey_svc.ports import Answer, Reservation, Store
from survey_svc.requests.creation import FORGOTTEN, LEASE, Applicant, Creation, digest
from survey_svc.requests.listing import Listing
from survey_svc.requests.misses import Misses
from survey_svc.requests.rules import Row
from survey_svc.storage.memory_cache import MemoryCache
from survey_svc.storage.sql_store import SqlStore
from survey_svc.study.profile import Profile
from survey_svc.study.study import Study
from tests.survey_svc.fakes import FakeProject

ADA = Applicant("ada", "ada@example.org")


class Replica:
    """One replica of the creation rules on a shared store and project."""

    def __init__(
        self, profile: Profile, project: FakeProject, store: Store, clock: FakeClock
    ) -> None:
        self.project = project
        self.store = store
        listing = Listing(Study(profile, project), project, MemoryCache(), Misses(30))
        self.creation = Creation(profile, project, store, listing, clock)

    async def create(self, key: str = "", notice: str = "") -> str:
        """Create a request for Ada."""
        return await self.creation.create(ADA, consent=True, notice=notice, key=key)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test advances."""
    return FakeClock()


@pytest.fixture
def project(profile: Profile) -> FakeProject:
    """An empty REDCap project."""
    return FakeProject(profile)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store."""
    store = await SqlStore.open(f"sqlite+aiosqlite:///{tmp_path}/s.sqlite")
    yield store
    await store.close()


@pytest.fixture
def replica(profile: Profile, project: FakeProject, store: Store, clock: FakeClock) -> Replica:
    """The replica under test."""
    return Replica(profile, project, store, clock)


async def _crashed(replica: Replica, clock: FakeClock, *, key: str = "") -> Reservation:
    """Leave the reservation of a crashed holder."""
    attempt = replica.creation._attempt(ADA, "", key)
    await replica.store.claim(attempt, clock())
    return attempt


async def test_counted_once(replica: Replica, clock: FakeClock) -> None:
    """A request counts once: not for repeated responses, and also if its holder crashed."""

    def counted() -> float:
        return REGISTRY.get_sample_value("amarre_survey_requests_created_total") or 0

    before = counted()
    assert await replica.create(key="k") == await replica.create(key="k")
    with pytest.raises(OpenRequestExistsError):
        await replica.create()
    assert counted() == before + 1

    replica.project.stored.clear()
    crashed = await _crashed(replica, clock)
    await replica.project.save(replica.creation._row(ADA, crashed))
    clock.advance(LEASE)
    await replica.creation.sweep()
    await replica.creation.sweep()
    assert counted() == before + 2


class TestOutage:
    async def test_is_no_conflict(self, replica: Replica) -> None:
        """While REDCap is unavailable, every attempt is UNAVAILABLE, never a conflict (C14)."""
        replica.project.unavailable = -1
        for _ in range(4):
            with pytest.raises(UnavailableError):
                await replica.create()

        replica.project.unavailable = 0
        assert await replica.create()
        assert 1 == len(replica.project.stored)

    async def test_hanging_up(self, replica: Replica, clock: FakeClock) -> None:
        """
        A caller who disconnects during the look-up of an older creation does not block later
        attempts.
        """
        await _crashed(replica, clock)
        clock.advance(LEASE)
        looked = asyncio.Event()
        rows = replica.project.rows

        async def hang(users: Sequence[str]) -> list[Row]:
            looked.set()
            await asyncio.Event().wait()
            return []

        replica.project.rows = hang  # type: ignore[method-assign]
        attempt = asyncio.create_task(replica.create())
        await asyncio.wait_for(looked.wait(), 10)
        attempt.cancel()
        await asyncio.wait([attempt])
        replica.project.rows = rows  # type: ignore[method-assign]

        assert await replica.create()

    @pytest.mark.parametrize("unavailable", [0, -1], ids=["confirmed", "not confirmed"])
    async def test_incomplete_export(self, replica: Replica, unavailable: int) -> None:
        """An export that lacks the user's open request does not permit a second one."""
        first = await replica.create()
        await replica.creation._listing.rows(ADA.id)
        replica.project.omitted = {first}
        by_id = replica.project.rows_by_id

        async def answer(user: str, records: Sequence[str]) -> list[Row]:
            replica.project.unavailable = unavailable
            return await by_id(user, records)

        replica.project.rows_by_id = answer  # type: ignore[method-assign]

        with pytest.raises(UnavailableError if unavailable else OpenRequestExistsError):
            await replica.create()
        assert 1 == len(replica.project.stored)


class TestCrash:
    async def test_before_import(self, replica: Replica, clock: FakeClock) -> None:
        """After a crash before the import, the next creation uses the same record id."""
        crashed = await _crashed(replica, clock)
        with pytest.raises(OpenRequestExistsError):
            await replica.create()
        clock.advance(LEASE)

        assert crashed.record == await replica.create()
        assert [crashed.record] == list(replica.project.stored)

    async def test_after_import(self, replica: Replica, clock: FakeClock) -> None:
        """After a crash behind the import, the request counts: a new creation finds it."""
        crashed = await _crashed(replica, clock, key="k1")
        await replica.project.save(replica.creation._row(ADA, crashed))
        clock.advance(LEASE)

        with pytest.raises(OpenRequestExistsError):
            await replica.create(key="k2")

        assert crashed.record == await replica.create(key="k1")
        assert [crashed.record] == list(replica.project.stored)
        assert await replica.store.consent(crashed.record) is not None

    async def test_after_import_and_filled(self, replica: Replica, clock: FakeClock) -> None:
        """If the request of the crash has been filled in, a new one gets its own record."""
        crashed = await _crashed(replica, clock)
        await replica.project.save({**replica.creation._row(ADA, crashed), "form_complete": "2"})
        clock.advance(LEASE)

        created = await replica.create()

        assert {crashed.record, created} == set(replica.project.stored)

    async def test_repeat_with_key(self, replica: Replica, clock: FakeClock) -> None:
        """A retry with the key of a crashed creation resumes it, even before the lease ends."""
        crashed = await _crashed(replica, clock, key="k")

        assert crashed.record == await replica.create(key="k")
        assert [crashed.record] == list(replica.project.stored)

    async def test_settled_in_between(
        self, replica: Replica, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A retry whose creation completes right after its look-up gets that response, not a conflict.
        """
        crashed = await _crashed(replica, clock, key="k")
        await replica.project.save(replica.creation._row(ADA, crashed))
        clock.advance(LEASE)
        asked = replica.store.answered

        async def answered(user: str, key: str, now: datetime) -> Answer | None:
            monkeypatch.setattr(replica.store, "answered", asked)
            found = await asked(user, key, now)
            await replica.creation.sweep()
            return found

        monkeypatch.setattr(replica.store, "answered", answered)

        assert crashed.record == await replica.create(key="k")
        assert [crashed.record] == list(replica.project.stored)
        with pytest.raises(OpenRequestExistsError):
            await replica.create()

    async def test_sweep(self, replica: Replica, clock: FakeClock) -> None:
        """The sweep completes what reached REDCap and, much later, gives up the rest."""
        crashed = await _crashed(replica, clock, key="k")
        await replica.project.save(replica.creation._row(ADA, crashed))
        clock.advance(LEASE)
        await replica.creation.sweep()

        answer = await replica.store.answered("ada", digest("k"), clock())
        assert answer is not None
        assert crashed.record == answer.record
        assert [] == await replica.store.abandoned(clock())

    async def test_sweep_gives_up(self, replica: Replica, clock: FakeClock) -> None:
        """A reservation that never reached REDCap is deleted after an hour, not before."""
        await _crashed(replica, clock)
        clock.advance(LEASE + FORGOTTEN)
        await replica.creation.sweep()
        assert 1 == len(await replica.store.abandoned(clock()))

        clock.advance(timedelta(seconds=1))
        await replica.creation.sweep()

        assert [] == await replica.store.abandoned(clock())


class TestUncertain:
    async def test_answer_lost(self, replica: Replica) -> None:
        """If REDCap stored the record but its response was lost, the look-up finds it: success."""
        replica.project.lose_answers = 1

        created = await replica.create()

        assert [created] == list(replica.project.stored)

    async def test_answer_lost_and_cannot_look(self, replica: Replica) -> None:
        """If the outcome cannot be looked up, the call fails and its retry finds the record."""
        replica.project.lose_answers = 1
        reads = replica.project.reads
        original = replica.project.rows

        async def rows(users: list[str]) -> object:
            if replica.project.stored and replica.project.reads == reads + 1:
                replica.project.unavailable = 1
            return await original(users)

        replica.project.rows = rows  # type: ignore[method-assign,assignment]
        with pytest.raises(UnavailableError):
            await replica.create(key="k")

        assert [await replica.create(key="k")] == list(replica.project.stored)

    @pytest.mark.parametrize("key", ["k", ""])
    async def test_stored_later(self, replica: Replica, project: FakeProject, key: str) -> None:
        """
        If REDCap breaks off and stores the record later, the error says that this is not known, and
        a retry does not create a second request.
        """
        project.refuse = UnavailableError("The fake REDCap is slow.")
        sent: list[Row] = []
        original = project.save

        async def save(row: Row) -> None:
            sent.append(row)
            await original(row)

        project.save = save  # type: ignore[method-assign]
        with pytest.raises(UnavailableError, match="not known whether") as ei:
            await replica.create(key=key)
        assert "try again" in ei.value.message

        project.refuse = None
        await original(sent[0])
        if key:
            assert sent[0]["record_id"] == await replica.create(key=key)
        else:
            with pytest.raises(OpenRequestExistsError):
                await replica.create()
        assert 1 == len(project.stored)

    async def test_cannot_look_first(self, replica: Replica) -> None:
        """
        If the look-up of open requests fails, nothing is sent, and the reservation is released.
        """
        replica.project.unavailable = 1

        with pytest.raises(UnavailableError):
            await replica.create()

        assert 0 == replica.project.saves
        assert [await replica.create()] == list(replica.project.stored)

    async def test_refused(self, replica: Replica) -> None:
        """A rejection releases the reservation and creates nothing."""
        replica.project.refuse = RefusedError("no")
        with pytest.raises(RefusedError):
            await replica.create(key="k")
        replica.project.refuse = None

        assert [await replica.create(key="k")] == list(replica.project.stored)

    async def test_caller_hangs_up(self, replica: Replica, project: FakeProject) -> None:
        """
        A caller who disconnects during the import releases the reservation for the next attempt.
        """
        project.gate = asyncio.Event()
        call = asyncio.create_task(replica.create())
        await project.saving.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        project.gate = None

        assert [await replica.create()] == list(project.stored)

    async def test_late_import(self, replica: Replica, project: FakeProject) -> None:
        """
        An import that REDCap executes after its caller gave up does not create a second record.
        """
        project.gate = asyncio.Event()
        row = None
        original = project.save

        async def save(sent: dict[str, str]) -> None:
            nonlocal row
            row = sent
            await original(sent)

        project.save = save  # type: ignore[method-assign,assignment]
        call = asyncio.create_task(replica.create())
        await project.saving.wait()
        call.cancel()
        await asyncio.wait([call])
        project.gate, project.save = None, original  # type: ignore[method-assign]
        created = await replica.create()
        assert row is not None
        await project.save(row)

        assert [created] == list(project.stored)


class TestTogether:
    async def test_two_replicas(
        self, profile: Profile, project: FakeProject, tmp_path: Path, clock: FakeClock
    ) -> None:
        """A hundred creations on two replicas create one record."""
        url = f"sqlite+aiosqlite:///{tmp_path}/two.sqlite"
        stores = [await SqlStore.open(url), await SqlStore.open(url)]
        replicas = [Replica(profile, project, store, clock) for store in stores]

        outcomes = await asyncio.gather(
            *(replicas[at % 2].create() for at in range(100)), return_exceptions=True
        )

        assert 1 == len(project.stored)
        assert 1 == sum(isinstance(outcome, str) for outcome in outcomes)
        refused = [outcome for outcome in outcomes if not isinstance(outcome, str)]
        assert any(isinstance(one, OpenRequestExistsError) for one in refused)
        # SQLite's lock may be waited for too long on a busy machine.
        assert all(isinstance(one, OpenRequestExistsError | UnavailableError) for one in refused)
        for store in stores:
            await store.close()

    async def test_remembered_only_with_success(self, replica: Replica) -> None:
        """A key whose attempt was rejected can be used for a later creation."""
        first = await replica.create()
        with pytest.raises(OpenRequestExistsError):
            await replica.create(key="k")
        replica.project.stored[first]["form_complete"] = "2"

        second = await replica.create(key="k")

        assert {first, second} == set(replica.project.stored)
