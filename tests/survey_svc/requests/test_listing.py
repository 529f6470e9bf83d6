"""The efficiency of lists: shared calls, no stale data after a write, cached links."""

import asyncio
from collections.abc import Mapping

import pytest

from mesh.chassis.errors import NotFoundError, RateLimitedError, UnavailableError
from survey_svc.errors import RefusedError
from survey_svc.requests.listing import Listing
from survey_svc.requests.misses import Misses
from survey_svc.storage.memory_cache import MemoryCache
from survey_svc.study.profile import Profile
from survey_svc.study.study import Study
from tests.survey_svc.fakes import FakeProject

BURST = 30


class CountingProject(FakeProject):
    """Counts link requests, and delays exports on request."""

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile)
        self.listed: dict[str, str] = {}
        self.no_lists = False
        self.asked_one = 0
        self.asked_all = 0
        self.hold: asyncio.Event | None = None
        self.cancelled = asyncio.Event()

    async def rows(self, users: object) -> list[Mapping[str, str]]:
        found = await super().rows(users)  # type: ignore[arg-type]
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return found

    async def link(self, record: str, instrument: str) -> str:
        self.asked_one += 1
        return await super().link(record, instrument)

    async def links(self, instrument: str) -> Mapping[str, str]:
        self.asked_all += 1
        if self.no_lists:
            raise RefusedError("no right")
        return self.listed


@pytest.fixture
def project(profile: Profile) -> CountingProject:
    """A project with three requests of Ada and one of Eve."""
    project = CountingProject(profile)
    for record, user in (("r1", "ada"), ("r2", "ada"), ("r3", "ada"), ("e1", "eve")):
        project.stored[record] = {"record_id": record, "userid": user, "created_at": "2026-01-01"}
    return project


@pytest.fixture
async def listing(profile: Profile, project: CountingProject) -> Listing:
    """A listing with an empty cache."""
    study = Study(profile, project)
    await study.check()
    # Nothing becomes old, however busy the machine is.
    return Listing(study, project, MemoryCache(now=lambda: 0.0), Misses(BURST))


class TestFlights:
    async def test_one_for_many(self, listing: Listing, project: CountingProject) -> None:
        """Concurrent callers share one call; later ones use the cache."""
        lists = await asyncio.gather(*(listing.requests("ada") for _ in range(50)))
        again = await listing.requests("ada")

        assert 1 == project.reads
        assert all(again == found for found in lists)
        assert again is await listing.requests("ada")

    async def test_one_gives_up(self, listing: Listing, project: CountingProject) -> None:
        """A cancelled caller does not cancel the call of the others."""
        project.hold = asyncio.Event()
        first = asyncio.create_task(listing.rows("ada"))
        second = asyncio.create_task(listing.rows("ada"))
        while not project.reads:
            await asyncio.sleep(0)
        first.cancel()
        project.hold.set()

        assert 3 == len(await second)
        assert 1 == project.reads

    async def test_all_give_up(self, listing: Listing, project: CountingProject) -> None:
        """When the last caller is cancelled, the call to REDCap is cancelled (H3)."""
        project.hold = asyncio.Event()
        waiters = [asyncio.create_task(listing.rows("ada")) for _ in range(2)]
        while not project.reads:
            await asyncio.sleep(0)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.wait_for(project.cancelled.wait(), 10)

    async def test_failure_is_not_kept(self, listing: Listing, project: CountingProject) -> None:
        """Every waiter of a failed call gets its error; the next caller starts a new call."""
        project.unavailable = 1
        told = await asyncio.gather(
            *(listing.requests("ada") for _ in range(5)), return_exceptions=True
        )

        assert all(isinstance(one, UnavailableError) for one in told)
        assert 3 == len(await listing.requests("ada"))

    async def test_write_during_flight(self, listing: Listing, project: CountingProject) -> None:
        """Data requested before a write is not shown after it."""
        project.hold = asyncio.Event()
        before = asyncio.create_task(listing.rows("ada"))
        while not project.reads:
            await asyncio.sleep(0)
        project.stored["r4"] = project.stored["r1"] | {"record_id": "r4"}
        await listing.forget("ada")
        project.hold.set()
        await before

        assert 4 == len(await listing.rows("ada"))

    async def test_old_rows_are_not_kept(self, listing: Listing, project: CountingProject) -> None:
        """Rows requested before a write are not cached for others either."""
        since = listing.writes()
        old = await project.rows(["ada"])
        await listing.forget("ada")
        await listing.keep("ada", old[:1], since=since)

        assert 3 == len(await listing.rows("ada"))


class TestOwnership:
    @pytest.mark.parametrize("record", ["e1", "r9", "", "r1 ", "R1"])
    async def test_not_own(self, listing: Listing, record: str) -> None:
        """Foreign, missing and merely similar records are not found."""
        with pytest.raises(NotFoundError):
            await listing.require_own("ada", record)

    async def test_guessing(self, listing: Listing, project: CountingProject) -> None:
        """
        A user who tries unknown ids soon causes no more REDCap calls and is RATE_LIMITED (H8).
        """
        outcomes = []
        for number in range(400):
            try:
                await listing.require_own("ada", f"guess{number}")
            except (NotFoundError, RateLimitedError) as error:
                outcomes.append(type(error))

        assert 400 == len(outcomes)
        assert BURST + 3 >= outcomes.count(NotFoundError)
        assert BURST + 5 >= project.reads
        await listing.require_own("ada", "r1")

    async def test_same_miss(self, listing: Listing, project: CountingProject) -> None:
        """The same unknown id is looked up once."""
        for _ in range(5):
            with pytest.raises(NotFoundError):
                await listing.require_own("ada", "e1")

        assert 2 == project.reads

    async def test_made_elsewhere(self, listing: Listing, project: CountingProject) -> None:
        """A record just created by another replica is found, despite the cache."""
        await listing.requests("ada")
        project.stored["r4"] = project.stored["r1"] | {"record_id": "r4"}

        await listing.require_own("ada", "r4")


class TestLinks:
    async def test_listed(self, listing: Listing, project: CountingProject) -> None:
        """Several missing links take one list, once."""
        project.listed = {record: f"http://x/{record}" for record in ("r1", "r2", "r3", "e1")}

        requests = await listing.requests("ada")
        await listing.forget("ada")
        project.stored["r1"]["invite_nom"] = "Bo"
        await listing.requests("ada")

        assert {"http://x/r1", "http://x/r2", "http://x/r3"} == {
            request.steps[0].url for request in requests
        }
        assert (1, 0) == (project.asked_all, project.asked_one)

    @pytest.mark.parametrize("no_lists", [False, True], ids=["not listed", "no right to the list"])
    async def test_not_listed(
        self, listing: Listing, project: CountingProject, no_lists: bool
    ) -> None:
        """Links that REDCap does not list are requested individually, once."""
        project.no_lists = no_lists

        requests = await listing.requests("ada")

        assert all(request.steps[0].url for request in requests)
        assert (1, 3) == (project.asked_all, project.asked_one)

    async def test_single(self, listing: Listing, project: CountingProject) -> None:
        """One missing link does not request a whole list."""
        await listing.requests("eve")

        assert (0, 1) == (project.asked_all, project.asked_one)
