"""Shared calls: the longest deadline of the waiters applies, and each waits until its own."""

import asyncio

import pytest

from mesh.chassis import call
from mesh.chassis.errors import DeadlineExceededError
from mesh.chassis.identity import SpiffeId
from survey_svc import deadline
from survey_svc.requests.shared_calls import SharedCalls

CALLER = SpiffeId("amarre.local", "amarre", "gateway")


class Work:
    """A call that lasts until the test ends it."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = asyncio.Event()
        self.go = asyncio.Event()
        self.deadline: deadline.Deadline | None = None

    async def __call__(self) -> str:
        self.calls += 1
        self.deadline = deadline.current(0)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "done"


async def _ask(shared: SharedCalls[str], work: Work, seconds: float) -> str:
    now = asyncio.get_running_loop().time()
    call.enter(call.Call("survey.ListRequests", CALLER, now + seconds + deadline.MARGIN_SECONDS))
    return await shared.run("key", work)


async def _started(work: Work) -> None:
    while not work.calls:
        await asyncio.sleep(0)


async def test_longest_deadline() -> None:
    """A caller with little time does not shorten the call of one with more (A10)."""
    shared, work = SharedCalls[str](), Work()
    first = asyncio.create_task(_ask(shared, work, 0.05))
    await _started(work)
    second = asyncio.create_task(_ask(shared, work, 60))

    with pytest.raises(DeadlineExceededError):
        await first
    assert work.deadline is not None
    assert 30 < work.deadline.remaining_seconds()
    work.go.set()
    assert "done" == await second
    assert 1 == work.calls


async def test_own_deadline() -> None:
    """A caller with little time does not wait for one with more."""
    shared, work = SharedCalls[str](), Work()
    first = asyncio.create_task(_ask(shared, work, 60))
    await _started(work)

    with pytest.raises(DeadlineExceededError):
        await _ask(shared, work, 0.05)

    assert not work.cancelled.is_set()
    work.go.set()
    assert "done" == await first


async def test_last_waiter_leaves() -> None:
    """The call is cancelled with the last waiter, not before (H3)."""
    shared, work = SharedCalls[str](), Work()
    waiters = [asyncio.create_task(_ask(shared, work, 60)) for _ in range(3)]
    await _started(work)
    for waiter in waiters[:2]:
        waiter.cancel()
    await asyncio.wait(waiters[:2])
    await asyncio.sleep(0)
    assert not work.cancelled.is_set()

    waiters[2].cancel()
    await asyncio.wait_for(work.cancelled.wait(), 10)

    work.go.set()
    assert "done" == await _ask(shared, work, 60)
    assert 2 == work.calls


async def test_timeout_of_work_is_its_own() -> None:
    """A TimeoutError of the call itself is not mistaken for the caller's deadline."""
    shared = SharedCalls[str]()

    async def fail() -> str:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await shared.run("key", fail)
