"""Processes from a fork server behave like executed ones, and end with the runner."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from mesh.local.processes.fork_server import ForkServer, ForkServerError
from mesh.local.processes.log_files import LogFiles
from mesh.local.processes.supervisor import Child, Supervisor
from mesh.local.running_mesh import is_alive

COMMAND = [sys.executable, "-m", "tests.mesh.local.processes.forking"]


def runs(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the small runner; return its process id and the outcome of each process."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60)
    assert "" == done.stderr
    first, *lines = done.stdout.splitlines()
    return int(first), [json.loads(line) for line in lines]


def test_like_an_executed_process() -> None:
    """Arguments, environment, time zone, parent, session, descriptors and title are as expected."""
    runner, (found,) = runs("ends")
    seen = json.loads(found["output"])

    assert 0 == found["status"]
    assert seen.pop("environment").items() >= {"ONLY": "this", "TZ": "Asia/Tokyo"}.items()
    assert {
        "arguments": ["report", "ends"],
        "imported": True,
        "parent": runner,
        "leads_session": True,
        "descriptors": [0, 1, 2],
        "stdin": "",
        "title": " ".join([*COMMAND, "report", "ends"]),
        "zone": "JST",
    } == seen


def test_nothing_of_the_runner_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process sees only the variables that it was started with."""
    monkeypatch.setenv("SECRET_OF_THE_RUNNER", "x")
    _, (found,) = runs("ends")

    # Python's own start sets LC_CTYPE in the C locale.
    assert {"ONLY", "TZ"} == json.loads(found["output"])["environment"].keys() - {"LC_CTYPE"}


@pytest.mark.parametrize(
    ("how", "status", "words"),
    [("exits", 3, ""), ("killed", -9, ""), ("fails", 1, "OSError: no such luck")],
)
def test_status(how: str, status: int, words: str) -> None:
    """The runner gets the exit status; an exception leaves a traceback in the log."""
    _, (found,) = runs(how)

    assert status == found["status"]
    assert words in found["output"]


def test_many_at_once() -> None:
    """Thirty processes that start together are all separate."""
    _, found = runs(*["ends"] * 30)

    assert 30 == len({one["pid"] for one in found})
    assert {0} == {one["status"] for one in found}


def test_ends_with_the_runner() -> None:
    """A killed runner takes its processes with it."""
    done = subprocess.run([*COMMAND, "orphan"], capture_output=True, text=True, timeout=60)
    orphan = int(done.stdout.split()[1])
    until = time.monotonic() + 10
    while is_alive(orphan) and time.monotonic() < until:
        time.sleep(0.05)

    assert -9 == done.returncode
    assert not is_alive(orphan)


@pytest.mark.parametrize("how", ["without-server", "with-hung-server"])
def test_server_gone(how: str) -> None:
    """Without its server, the runner detects that processes must be started in another way."""
    _, (found,) = runs(how)

    assert {"runs": False} == found


async def test_supervisor_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor whose fork server has died executes its processes instead."""
    mark = tmp_path / "ready"
    monkeypatch.setattr(ForkServer, "start", AsyncMock(side_effect=ForkServerError))

    async def ready() -> bool:
        return mark.exists()

    child = Child(
        name="one",
        command=[sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "0"],
        environment={},
        log_file=tmp_path / "one.log",
        logs=LogFiles(),
        ready=ready,
        forks=ForkServer(Mock(), 0),
    )
    mark.touch()
    supervisor = Supervisor(lambda: None)
    await supervisor.start([child])
    pid = child.pid
    assert is_alive(pid)
    await supervisor.stop([])

    assert not is_alive(pid)
