"""Clock steps under load: the wall clock of every process jumps forwards and back."""

import asyncio
import contextlib
import os
import shutil
import struct
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chaos.clients import People
from tests.chaos.history import Fault, History, summary, violations
from tests.chaos.test_chaos import DEADLINE_SECONDS, RECOVERY_SECONDS, calm, fetch_stored
from tests.live import running

STEPS = [int(step) for step in os.environ.get("AMARRE_CHAOS_STEPS", "30,-30,600,-600").split(",")]
"""Seconds by which the clock jumps, one after the other."""
SETTLED_SECONDS = 3.0


class Clock:
    """The offset of the wall clock of the processes that a test starts."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.ahead = 0
        self.step(0)

    def step(self, seconds: int) -> None:
        """Move the clock by *seconds*."""
        self.ahead += seconds
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("l", self.ahead))


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of every process started by the test; needs a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler")
    library, source = tmp_path / "clock.so", Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    clock = Clock(tmp_path / "offset")
    monkeypatch.setenv("AMARRE_TEST_CLOCK", str(tmp_path / "offset"))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    return clock


async def test_steps(tmp_path: Path, clock: Clock) -> None:
    """
    After each step, calls succeed again in time; sessions go on, and no creation is lost or
    duplicated.

    In direct mode, since all processes are then forks of one that has the library.
    """
    history = History()
    with contextlib.ExitStack() as stack:
        ready = stack.enter_context(running(tmp_path, "--direct"))
        stop = asyncio.Event()
        people = asyncio.create_task(People(ready, history).run(stop))
        await calm(history, people)
        for seconds in STEPS:
            fault = Fault(f"clock step of {seconds:+} s", time.monotonic())
            history.faults.append(fault)
            clock.step(seconds)
            fault.ended = time.monotonic()
            fault.recovered = await calm(history, people)
            await _stepped(ready, clock)
            await asyncio.sleep(SETTLED_SECONDS)
        stop.set()
        await people
        found = await fetch_stored(ready)

    sys.stdout.write(f"{summary(history)}\n")
    assert [] == violations(
        history, found, deadline_seconds=DEADLINE_SECONDS, recovery_seconds=RECOVERY_SECONDS
    )


async def _stepped(ready: Any, clock: Clock) -> None:
    """Wait until responses are dated where *clock* is: once a second, or the clock is not ours."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client, asyncio.timeout(10):
        while True:
            answer = await client.get(f"{ready['urls']['app']}/healthz")
            shown = parsedate_to_datetime(answer.headers["date"]).timestamp()
            if abs(shown - time.time() - clock.ahead) < 5:
                return
            await asyncio.sleep(0.1)
