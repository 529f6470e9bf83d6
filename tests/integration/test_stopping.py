"""Stopping a mesh: by Ctrl-C, by SIGTERM, by the end of its terminal."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from mesh.local.data_folder import DataFolder
from tests.integration.test_running import AMARRE, pid_of
from tests.live import free_base

START_SECONDS = 60


class Started:
    """A mesh without proxies that the test stops itself."""

    def __init__(self, folder: Path, *prefix: str) -> None:
        self.data = folder / "data"
        self.log = folder / "up.log"
        self.ready_file = folder / "ready-here.json"
        for _ in range(5):
            with self.log.open("w") as output:
                self.process = subprocess.Popen(
                    [
                        *(*prefix, *AMARRE, "up", "--direct", "--port-base", str(free_base())),
                        *("--data", str(self.data), "--ready-file", str(self.ready_file)),
                    ],
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            deadline = time.monotonic() + START_SECONDS
            while not self.ready_file.exists() and self.process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            if self.process.poll() is None or "in use" not in self.log.read_text():
                break
        assert self.process.poll() is None, self.log.read_text()
        self.ready: Any = json.loads(self.ready_file.read_text())

    def nothing_is_left(self) -> bool:
        """Whether processes and ready files are gone."""
        pids = [process["pid"] for process in self.ready["processes"]]
        return not (
            [pid for pid in pids if Path(f"/proc/{pid}").exists()]
            or self.ready_file.exists()
            or (self.data / "ready.json").exists()
        )


def test_end_of_the_terminal(tmp_path: Path) -> None:
    """SIGHUP drains like SIGTERM, and leaves no process and no file with tokens behind."""
    # Whoever runs the tests may ignore the signal, which programs inherit.
    mesh = Started(tmp_path, "env", "--default-signal=HUP")

    mesh.process.send_signal(signal.SIGHUP)

    assert 0 == mesh.process.wait(30)
    assert "Stopped." in mesh.log.read_text()
    assert mesh.nothing_is_left()


def test_no_incident(tmp_path: Path) -> None:
    """Processes that drain and stop with their mesh are not scraped, and do not raise incidents."""
    mesh = Started(tmp_path)
    state = mesh.data / "state"
    assert "survey" in (state / "scraped.json").read_text()
    mesh.process.send_signal(signal.SIGTERM)

    assert 0 == mesh.process.wait(30)
    assert "[]" == (state / "scraped.json").read_text()
    with contextlib.closing(sqlite3.connect(state / "console.sqlite")) as database:
        found = database.execute("SELECT body FROM incidents").fetchall()
    assert not [body for (body,) in found if "ServiceDown" in body]


def test_nohup(tmp_path: Path) -> None:
    """A mesh that was started with SIGHUP ignored survives it."""
    mesh = Started(tmp_path, "nohup")

    mesh.process.send_signal(signal.SIGHUP)

    with pytest.raises(subprocess.TimeoutExpired):
        mesh.process.wait(2)
    mesh.process.send_signal(signal.SIGTERM)
    assert 0 == mesh.process.wait(30)


def test_files_are_private(tmp_path: Path) -> None:
    """Other users cannot read files of a mesh; when it stops, its sockets are removed."""
    before = os.umask(0o022)
    try:
        mesh = Started(tmp_path)
    finally:
        os.umask(before)
    found = [path for path in mesh.data.rglob("*") if not path.is_symlink()]
    readable = [path for path in found if path.lstat().st_mode & 0o007]
    sockets = DataFolder(mesh.data).sockets
    there = sockets.exists()
    mesh.process.send_signal(signal.SIGTERM)

    assert 0 == mesh.process.wait(30)
    assert [] == readable
    assert there
    assert not sockets.exists()


def test_quit(tmp_path: Path) -> None:
    """SIGQUIT (Ctrl-\\) stops at once, and leaves no process and no file with tokens behind."""
    mesh = Started(tmp_path)
    os.kill(pid_of(mesh.ready, "survey"), signal.SIGSTOP)

    began = time.monotonic()
    mesh.process.send_signal(signal.SIGQUIT)
    status = mesh.process.wait(30)

    assert 130 == status
    assert time.monotonic() - began < 5
    assert "Stopping at once" in mesh.log.read_text()
    assert mesh.nothing_is_left()


def test_closed_output(tmp_path: Path) -> None:
    """A mesh whose standard output is closed stops, and says so."""
    command = [*AMARRE, "up", "--direct", "--port-base", str(free_base()), "--data", str(tmp_path)]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(writer)

    assert 2 == done.returncode
    assert "Standard output was closed" in done.stderr
    assert "Traceback" not in done.stderr


def test_second_interrupt(tmp_path: Path) -> None:
    """
    The first Ctrl-C drains and says how to stop at once; the second stops within 2 s although a
    service is stopped by SIGSTOP.
    """
    mesh = Started(tmp_path)
    held = pid_of(mesh.ready, "survey")
    os.kill(held, signal.SIGSTOP)
    mesh.process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 10
    while "again stops at once" not in mesh.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)

    began = time.monotonic()
    mesh.process.send_signal(signal.SIGINT)
    mesh.process.wait(30)

    assert time.monotonic() - began < 2
    assert mesh.nothing_is_left()
