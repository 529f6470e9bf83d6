"""Rating of parts, validity of results, and notification of changes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from health_svc import status
from health_svc.ports import Check, PartDownError
from health_svc.status import Board, Condition, State
from mesh.chassis import call
from mesh.chassis.identity import SpiffeId
from mesh.chassis.testing import FakeClock

TINY = timedelta(milliseconds=20)


class Part:
    """A part whose check behaves as configured and counts its calls."""

    def __init__(self, clock: FakeClock | None = None, takes: timedelta = timedelta()) -> None:
        self.down = ""
        self.asked = 0
        self._clock = clock
        self._takes = takes

    async def __call__(self) -> None:
        self.asked += 1
        if self._clock:
            self._clock.advance(self._takes)
        await asyncio.sleep(0)
        if self.down:
            raise PartDownError(self.down)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class TestJudgement:
    async def test_all_well(self, clock: FakeClock) -> None:
        """Parts that respond are healthy, in configuration order."""
        state = await Board({"auth": Part(), "redcap": Part()}, clock=clock.time).current()

        assert Condition.HEALTHY == state.condition
        assert ["auth", "redcap"] == [part.name for part in state.parts]
        assert ["", ""] == [part.message for part in state.parts]

    async def test_slow(self, clock: FakeClock) -> None:
        """A part that takes longer than 2 s is degraded, and so is the mesh."""
        slow = Part(clock, timedelta(seconds=2.1))

        state = await Board({"redcap": slow}, clock=clock.time).current()

        assert Condition.DEGRADED == state.condition
        assert "Took 2.1 s to respond." == state.parts[0].message

    async def test_down(self, clock: FakeClock) -> None:
        """One failing part makes the mesh unhealthy, with the reason."""
        down = Part()
        down.down = "Answers HTTP 500."

        state = await Board({"auth": Part(), "redcap": down}, clock=clock.time).current()

        assert Condition.UNHEALTHY == state.condition
        assert [Condition.HEALTHY, Condition.UNHEALTHY] == [p.condition for p in state.parts]
        assert "Answers HTTP 500." == state.parts[1].message

    async def test_hung(self) -> None:
        """A part that does not respond is unhealthy after the time limit."""

        async def hang() -> None:
            await asyncio.Event().wait()

        state = await Board({"redcap": hang}, give_up=TINY).current()

        assert Condition.UNHEALTHY == state.condition
        assert "No response" in state.parts[0].message

    async def test_broken_check(self) -> None:
        """An unexpected exception in a check makes its part unhealthy and nothing else."""

        async def broken() -> None:
            raise ZeroDivisionError

        state = await Board({"redcap": broken, "auth": Part()}).current()

        assert [Condition.UNHEALTHY, Condition.HEALTHY] == [p.condition for p in state.parts]


class TestCache:
    async def test_ten_seconds(self, clock: FakeClock) -> None:
        """A result is valid for 10 s."""
        part = Part()
        board = Board({"auth": part}, clock=clock.time)

        first = await board.current()
        clock.advance(timedelta(seconds=9.9))
        assert first is await board.current()
        clock.advance(timedelta(seconds=0.1))
        assert first is not await board.current()

        assert 2 == part.asked

    async def test_bad_result(self, clock: FakeClock) -> None:
        """A result that is not healthy is checked again after 0.5 s, so recovery shows at once."""
        part = Part()
        part.down = "Starting."
        board = Board({"auth": part}, clock=clock.time)
        assert Condition.UNHEALTHY is (await board.current()).condition
        part.down = ""
        clock.advance(timedelta(seconds=0.4))
        assert Condition.UNHEALTHY is (await board.current()).condition
        clock.advance(timedelta(seconds=0.2))
        assert Condition.HEALTHY is (await board.current()).condition
        assert 2 == part.asked

    async def test_hung_part_delays_nobody(
        self, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While an unhealthy part hangs, callers get the last result after a short wait."""
        monkeypatch.setattr(status, "PATIENCE", timedelta(milliseconds=10))
        hangs = asyncio.Event()

        async def check() -> None:
            if hangs.is_set():
                await asyncio.Event().wait()
            raise PartDownError("Unavailable.")

        board = Board({"redcap": check}, clock=clock.time)
        first = await board.current()
        hangs.set()
        clock.advance(timedelta(seconds=1))
        async with asyncio.timeout(2):
            assert first is await board.current()

    async def test_single_flight(self) -> None:
        """A hundred concurrent callers share one check."""
        part = Part()
        board = Board({"auth": part})

        states = await asyncio.gather(*(board.current() for _ in range(100)))

        assert 1 == part.asked
        assert 1 == len({id(state) for state in states})

    async def test_deadline_of_one(self) -> None:
        """The deadline of the first caller does not shorten the shared check."""
        left: list[float | None] = []

        async def check() -> None:
            left.append(call.remaining_seconds())

        ends_at = asyncio.get_running_loop().time() + 1
        call.enter(call.Call("health.GetStatus", SpiffeId("d", "n", "gateway"), ends_at))

        await Board({"auth": check}).current()

        assert [None] == left

    async def test_impatient(self) -> None:
        """A cancelled caller does not affect the others."""
        gate = asyncio.Event()

        async def wait() -> None:
            await gate.wait()

        board = Board({"auth": wait})
        impatient = asyncio.create_task(board.current())
        patient = asyncio.create_task(board.current())
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.sleep(0)
        gate.set()

        assert Condition.HEALTHY == (await patient).condition
        assert impatient.cancelled()


async def take(stream: AsyncIterator[State | None], count: int) -> list[State | None]:
    async with asyncio.timeout(5):
        return [await anext(stream) for _ in range(count)]


def board(check: Check, *, holds: timedelta = TINY) -> Board:
    return Board({"auth": check}, holds=holds)


class TestWatch:
    async def test_change(self) -> None:
        """The current state comes first, then each change, and nothing else."""
        part = Part()
        stream = board(part).watch(heartbeat=timedelta(seconds=60))

        (first,) = await take(stream, 1)
        part.down = "Does not respond."
        (second,) = await take(stream, 1)
        part.down = ""
        (third,) = await take(stream, 1)

        assert first is not None
        assert second is not None
        assert third is not None
        assert [Condition.HEALTHY, Condition.UNHEALTHY, Condition.HEALTHY] == [
            state.condition for state in (first, second, third)
        ]
        assert first.event_id == third.event_id != second.event_id

    async def test_heartbeat(self) -> None:
        """A silent stream yields heartbeats."""
        stream = board(Part(), holds=timedelta(seconds=60)).watch(heartbeat=TINY)

        assert [None, None] == (await take(stream, 3))[1:]

    async def test_resumed(self) -> None:
        """A watcher that names the current state does not receive it again."""
        watched = board(Part(), holds=timedelta(seconds=60))
        known = (await watched.current()).event_id

        assert [None] == await take(watched.watch(known, heartbeat=TINY), 1)

    async def test_ends(self) -> None:
        """A watch ends at its time limit."""
        async with asyncio.timeout(5):
            states = [state async for state in board(Part()).watch(lasts=3 * TINY)]

        assert 1 == len(states)
