"""Canaries during failures: the analysis continues, and abort always succeeds."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mesh.control import ControlError
from mesh.local.control import canary as module
from mesh.local.control.canary import Canary
from mesh.local.control.canary_analysis import Sample
from mesh.local.processes.envoy import EnvoyError
from mesh.render.envoy import Traffic

HEALTHY = (Sample(1000, 0, {10: 1000}), Sample(1000, 0, {10: 1000}))
BAD = (Sample(1000, 0, {10: 1000}), Sample(2000, 900, {10: 2000}))


class Config:
    """The traffic settings of a mesh without Envoys."""

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.endpoints: dict[str, tuple[str, ...]] = {"survey": ("127.0.0.1:1",)}

    def apply(self, *, traffic: Traffic | None = None, endpoints: Any = None) -> None:
        self.traffic = traffic or self.traffic
        self.endpoints = endpoints or self.endpoints


class Fleet:
    """A fake fleet of names."""

    def __init__(self) -> None:
        self.units: dict[str, Any] = {}
        self.proxies = Config()
        self.failing = ""
        """What fails: ``add``, ``remove`` or nothing."""
        self.ready = asyncio.Event()
        self.ready.set()

    async def add(self, process: Any, name: str, replica: int, *, command: Any) -> str:
        if self.failing == "add":
            raise EnvoyError("Envoy does not answer.")
        await self.ready.wait()
        self.units[name] = SimpleNamespace(process=process)
        return "127.0.0.1:2"

    async def remove(self, name: str) -> None:
        self.units.pop(name, None)
        if self.failing == "remove":
            raise OSError("No space left on device")

    def instances(self, service: str) -> list[str]:
        return []


class Watched(Canary):
    """A canary whose Envoy returns the test's samples; `None` for no response."""

    answer: Any = HEALTHY

    async def _wait_until_healthy(self) -> None:
        if self.answer is None:
            raise EnvoyError("Envoy does not answer.")

    async def _read(self) -> Any:
        if self.answer is None:
            raise EnvoyError("Envoy does not answer.")
        return self.answer


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def canary(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    return Watched(fleet, "survey", command=None, manual=False)  # type: ignore[arg-type]


def traces(fleet: Fleet) -> tuple[Any, ...]:
    """The remains of a canary: processes, weights, endpoints."""
    return dict(fleet.units), dict(fleet.proxies.traffic.weights), set(fleet.proxies.endpoints)


NOTHING: tuple[Any, ...] = ({}, {}, {"survey"})


async def test_analysis_survives_an_envoy_that_does_not_answer(
    fleet: Fleet, canary: Watched
) -> None:
    """While Envoy does not respond, the problem is reported; afterwards a bad canary is aborted."""
    await canary.start(10)
    canary.answer = None
    async with asyncio.timeout(5):
        while not canary.problem:
            await asyncio.sleep(0.01)
    assert canary.active

    canary.answer = HEALTHY
    async with asyncio.timeout(5):
        while canary.problem:
            await asyncio.sleep(0.01)
    canary.answer = BAD
    async with asyncio.timeout(5):
        while canary.active:
            await asyncio.sleep(0.01)

    assert canary.state.startswith("aborted")
    assert NOTHING == traces(fleet)
    await canary.close()


async def test_abort_while_envoy_does_not_answer(fleet: Fleet, canary: Watched) -> None:
    """
    An operator's abort ends with weight 0 and no process, whatever Envoy returns, also repeatedly.
    """
    await canary.start(50)
    canary.answer = None
    for _ in range(2):
        await canary.close()
        await canary.abort()
        assert NOTHING == traces(fleet)
        assert 0 == canary.weight
    assert "aborted by an operator" == canary.state


async def test_abort_whose_first_try_fails(fleet: Fleet, canary: Watched) -> None:
    """An abort with a failing step reports it, sets the weight to 0 anyway, and can be repeated."""
    await canary.start(50)
    fleet.failing = "remove"
    await canary.close()
    with pytest.raises(OSError, match="space"):
        await canary.abort()
    assert NOTHING == traces(fleet)

    fleet.failing = ""
    await canary.abort()

    assert NOTHING == traces(fleet)
    assert not canary.active


@pytest.mark.parametrize("failing", ["add", "health"])
async def test_failed_start_leaves_nothing(fleet: Fleet, canary: Watched, failing: str) -> None:
    """A canary that fails to start leaves no process, weight or endpoint behind."""
    fleet.failing = failing
    if failing == "health":
        canary.answer = None

    with pytest.raises(ControlError, match="nothing changed"):
        await canary.start(10)

    assert NOTHING == traces(fleet)
    assert not canary.active


async def test_abort_during_the_start(fleet: Fleet, canary: Watched) -> None:
    """An abort ends a start at once; until it has ended, the canary counts as active."""
    fleet.ready.clear()
    starting = asyncio.create_task(canary.start(10))
    await asyncio.sleep(0)
    aborting = asyncio.create_task(canary.abort())
    await asyncio.sleep(0)
    assert canary.active

    await aborting
    with pytest.raises(ControlError, match="aborted by an operator"):
        await starting
    fleet.ready.set()
    await asyncio.sleep(0)

    assert NOTHING == traces(fleet)
    assert not canary.active


async def test_decisions_are_recorded(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """An automatic abort is recorded like an operator's."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    recorded: list[Any] = []
    canary = Watched(
        fleet,  # type: ignore[arg-type]
        "survey",
        command=None,
        manual=False,
        record=lambda action, arguments: recorded.append((action, arguments)),
    )
    await canary.start(10)
    for answer in (None, HEALTHY):
        canary.answer = answer
        async with asyncio.timeout(5):
            while bool(canary.problem) is (answer is not None):
                await asyncio.sleep(0.01)
    canary.answer = BAD
    async with asyncio.timeout(5):
        while not recorded:
            await asyncio.sleep(0.01)
    await canary.close()

    assert [("canary abort", {"service": "survey"})] == recorded
