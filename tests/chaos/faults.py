"""Injected faults, and their seeded order."""

import asyncio
import contextlib
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tests.mesh.local.conftest import fill

VICTIMS = ("survey", "survey-2", "auth", "health", "gateway", "survey-envoy", "auth-envoy")
Make = Callable[[], AbstractAsyncContextManager[None]]


class Mesh:
    """A running mesh for fault injection."""

    def __init__(self, ready_file: Path, disk: Path | None = None) -> None:
        """
        Args:
            ready_file: The ready file.
            disk: The small file system that has the data folder; None if there is none.
        """
        self._ready_file = ready_file
        self.disk = disk

    @property
    def ready(self) -> Any:
        """The current ready file."""
        return json.loads(self._ready_file.read_text())

    def pid(self, name: str) -> int:
        """Return the process id of *name*."""
        return next(int(p["pid"]) for p in self.ready["processes"] if p["name"] == name)

    @contextlib.asynccontextmanager
    async def killed(self, name: str) -> AsyncIterator[None]:
        """Kill a process; the fault is over at once."""
        os.kill(self.pid(name), signal.SIGKILL)
        yield

    @contextlib.asynccontextmanager
    async def paused(self, name: str) -> AsyncIterator[None]:
        """Stop a process with SIGSTOP during the body."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @contextlib.asynccontextmanager
    async def redcap(self, **switches: Any) -> AsyncIterator[None]:
        """Make REDCap slow, or return HTML, during the body."""
        url = f"{self.ready['urls']['sandbox']}/_control/faults"
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            (await client.put(url, json=switches)).raise_for_status()
            try:
                yield
            finally:
                (await client.put(url, json={})).raise_for_status()

    @contextlib.asynccontextmanager
    async def full_disk(self, disk: Path) -> AsyncIterator[None]:
        """Fill the file system of the data folder during the body, and what becomes free."""
        filler = await asyncio.to_thread(fill, disk)
        try:
            yield
        finally:
            filler.unlink()


def schedule(
    mesh: Mesh, seed: int, stores: dict[str, Callable[[], None]]
) -> list[tuple[str, Make, float]]:
    """Return every fault once, in the order of *seed*: its name, how to inject it, its duration.

    Args:
        mesh: What they happen to.
        seed: Decides about order, victims and lengths.
        stores: How to restart each store, by name.
    """
    dice = random.Random(seed)
    found: list[tuple[str, Make, float]] = []
    for name in dice.sample(VICTIMS, 3):
        found.append((f"kill -9 of {name}", partial(mesh.killed, name), 0.0))
    for name in dice.sample(VICTIMS, 2):
        length = dice.uniform(1, 3)
        found.append((f"SIGSTOP of {name}", partial(mesh.paused, name), length))
    slow = dice.randrange(500, 2000)
    found += [
        (f"REDCap {slow} ms slow", lambda: mesh.redcap(latency_ms=slow), dice.uniform(2, 4)),
        ("REDCap answering HTML", lambda: mesh.redcap(mode="html"), dice.uniform(1, 3)),
        (
            "REDCap answering nothing now and then",
            lambda: mesh.redcap(mode="empty", error_rate=0.3),
            dice.uniform(1, 3),
        ),
        (
            "REDCap sending partial responses now and then",
            lambda: mesh.redcap(mode="partial", error_rate=0.5),
            dice.uniform(1, 3),
        ),
    ]
    if mesh.disk is not None:
        found.append(("full disk", partial(mesh.full_disk, mesh.disk), dice.uniform(2, 4)))
    for name, restart in stores.items():
        found.append((f"restart of {name}", partial(_restarted, restart), 0.0))
    dice.shuffle(found)
    return found


@contextlib.asynccontextmanager
async def _restarted(restart: Callable[[], None]) -> AsyncIterator[None]:
    await asyncio.to_thread(restart)
    yield
