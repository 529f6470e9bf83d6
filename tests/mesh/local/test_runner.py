"""The runner: the ready file of a mesh whose processes come and go."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mesh.local.data_folder import DataFolder
from mesh.local.processes.plan import Options
from mesh.local.runner import Runner


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[Runner]:
    """The runner of a prepared mesh whose processes have not been started."""
    data_folder = DataFolder(tmp_path)
    data_folder.prepare()
    runner = Runner(data_folder, Options(direct=True), None)
    yield runner
    runner.fleet.logs.close()


async def test_process_that_is_starting_is_not_in_the_ready_file(runner: Runner) -> None:
    """While an instance is starting, the ready file can be written, with those that run."""
    unit = next(unit for unit in runner.plan.units if unit.name == "survey")
    runner.fleet.units["survey"] = unit
    child: Any = SimpleNamespace(pid=1, ready_ms=5)
    runner.fleet.supervisor.children |= {"survey": child, "survey~": child}

    runner.write_ready_file()

    written = json.loads(runner.data_folder.ready.read_text())
    assert ["survey"] == [process["name"] for process in written["processes"]]
