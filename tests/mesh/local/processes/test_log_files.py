"""Log files on failing disks, without effects on processes."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mesh.local.processes.log_files import LogFiles
from tests.mesh.local.conftest import fill

WAIT_SECONDS = 10


@pytest.fixture
def logs() -> Iterator[LogFiles]:
    """Log files with a limit of 1000 bytes."""
    found = LogFiles(1000)
    yield found
    found.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for the writer thread."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_cut_at_a_size(logs: LogFiles, tmp_path: Path) -> None:
    """A log file that would exceed the limit becomes `.log.1`; both stay below the limit."""
    path = tmp_path / "survey.log"
    pipe = logs.pipe(path)
    for number in range(100):
        os.write(pipe.descriptor, f"{number:99}\n".encode())
        until(lambda wanted=f"{number}\n": logs.file(path).tail().endswith(wanted))  # type: ignore[misc]
    pipe.close()
    assert pipe.ended.wait(WAIT_SECONDS)

    assert path.read_text().endswith("99\n")
    assert path.stat().st_size <= 1000
    assert path.with_suffix(".log.1").stat().st_size <= 1000


def test_removed_folder_is_made_again(logs: LogFiles, tmp_path: Path) -> None:
    """After `rm -r logs` the next line is in a new file in a new folder."""
    path = tmp_path / "logs" / "survey.log"
    pipe = logs.pipe(path)
    os.write(pipe.descriptor, b"first\n")
    until(path.exists)
    shutil.rmtree(path.parent)

    os.write(pipe.descriptor, b"second\n")
    pipe.close()

    assert pipe.ended.wait(WAIT_SECONDS)
    assert "second\n" == path.read_text()


def test_full_disk_costs_lines_only(logs: LogFiles, small_disk: Path) -> None:
    """
    While the disk is full, a process can continue to write; lost lines are counted and reported,
    and writing resumes when there is space.
    """
    path = small_disk / "survey.log"
    filler = fill(small_disk)
    pipe = logs.pipe(path)
    file = logs.file(path)
    for number in range(300):
        os.write(pipe.descriptor, f"lost {number}\n".encode() * 50)
    until(lambda: "lost 299" in file.tail())
    until(lambda: file.lost_lines > 0)
    lost = file.lost_lines

    assert f"{path}: {lost} log lines were lost (No space left on device)." in logs.problems()
    filler.unlink()
    os.write(pipe.descriptor, b"kept\n")
    pipe.close()

    assert pipe.ended.wait(WAIT_SECONDS)
    assert path.read_text().endswith(f"({lost} lines lost: No space left on device)\nkept\n")
    assert [f"{path}: {lost} log lines were lost; writing works again."] == logs.problems()


def test_end_of_the_log_is_known_without_a_disk(logs: LogFiles, small_disk: Path) -> None:
    """The reason for the exit of a process can be shown although its log could not be stored."""
    path = small_disk / "survey.log"
    fill(small_disk)
    pipe = logs.pipe(path)
    os.write(pipe.descriptor, b"no such setting\n")
    pipe.close()

    assert pipe.ended.wait(WAIT_SECONDS)
    assert "no such setting\n" == logs.file(path).tail()
