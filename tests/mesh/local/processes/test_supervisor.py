"""Children of the supervisor: started, watched, restarted, stopped with their descendants."""

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from mesh.chassis import background
from mesh.local.processes.log_files import LogFiles
from mesh.local.processes.supervisor import Child, StartFailedError, Supervisor
from mesh.local.running_mesh import is_alive

LIVES = "import pathlib,sys,time; pathlib.Path(sys.argv[1]).write_text('up'); time.sleep(60)"
DIES = "import sys; print('cannot find my settings'); sys.exit(3)"
WITH_GRANDCHILD = (
    "import pathlib,subprocess,sys,time\n"
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "pathlib.Path(sys.argv[1]).write_text(str(p.pid)); time.sleep(60)"
)


def child(tmp_path: Path, program: str, name: str = "one", logs: LogFiles | None = None) -> Child:
    logs = logs or LogFiles()
    mark = tmp_path / f"{name}.ready"
    log = tmp_path / f"{name}.log"

    async def ready() -> bool:
        return mark.exists() and mark.read_text() != ""

    return Child(
        name=name,
        command=[sys.executable, "-c", program, str(mark)],
        environment=dict(os.environ),
        log_file=log,
        logs=logs,
        ready=ready,
        drain_seconds=1,
    )


async def test_died_process_comes_back(tmp_path: Path) -> None:
    """A process that dies is restarted, and the ready file is rewritten."""
    changed = asyncio.Event()
    supervisor = Supervisor(changed.set)
    one = child(tmp_path, LIVES)
    await supervisor.start([one])
    first = one.pid
    os.kill(first, 9)
    async with asyncio.timeout(10):
        await changed.wait()

    assert one.pid not in (0, first)
    assert 1 == one.restarts
    await supervisor.stop([])
    assert not is_alive(one.pid or -1)


async def test_failed_start_leaves_nothing(tmp_path: Path) -> None:
    """If one process exits before it is ready, the end of its log is shown and the others stop."""
    supervisor = Supervisor(lambda: None)
    good, bad = child(tmp_path, LIVES, "good"), child(tmp_path, DIES, "bad")

    with pytest.raises(StartFailedError, match=r"bad ended with status 3(.|\n)*my settings"):
        await supervisor.start([good, bad])

    assert 0 == good.pid
    assert {} == supervisor.children


async def test_cancelled_start_leaves_nothing(tmp_path: Path) -> None:
    """A start that is cancelled stops its process, whether it is being started or not ready yet."""
    supervisor = Supervisor(lambda: None)
    one = child(tmp_path, "import time; time.sleep(60)")
    for seconds in (0, 0.001, 0.2):
        starting = asyncio.create_task(supervisor.start([one]))
        await asyncio.sleep(seconds)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

        assert {} == supervisor.children
        assert 0 == one.pid
    assert one.process is not None


async def test_name_in_use(tmp_path: Path) -> None:
    """A second process with the name of a running one is not started, and the first continues."""
    supervisor = Supervisor(lambda: None)
    first = child(tmp_path, LIVES)
    await supervisor.start([first])

    with pytest.raises(StartFailedError, match="already running"):
        await supervisor.start([child(tmp_path, LIVES)])

    assert first is supervisor.children["one"]
    assert first.pid
    await supervisor.stop([])


async def test_group_is_stopped(tmp_path: Path) -> None:
    """The descendants of a child stop with it."""
    supervisor = Supervisor(lambda: None)
    one = child(tmp_path, WITH_GRANDCHILD)
    await supervisor.start([one])
    grandchild = int((tmp_path / "one.ready").read_text())

    await supervisor.stop([])

    async with asyncio.timeout(5):
        while is_running(grandchild):
            await asyncio.sleep(0.02)


def is_running(pid: int) -> bool:
    """Return whether *pid* is running; a zombie that init has not collected does not count."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def restarted(one: Child, first: int) -> None:
    """Wait until *one* runs as another process than *first*."""
    async with asyncio.timeout(20):
        while one.pid in (0, first):
            await asyncio.sleep(0.02)


async def test_removed_log_folder_does_not_end_supervision(tmp_path: Path) -> None:
    """
    A process that dies after `rm -r logs` is restarted, and its log is written again; before the
    restart, other removed files can be restored.
    """
    supervisor = Supervisor(lambda: None)
    one = child(tmp_path, "print('here', flush=True);" + LIVES)
    one.log_file = tmp_path / "logs" / "one.log"
    restored: list[bool] = []
    one.restore = lambda: restored.append(one.pid == 0)
    await supervisor.start([one])
    assert not restored
    first = one.pid
    shutil.rmtree(one.log_file.parent)
    os.kill(first, signal.SIGKILL)

    await restarted(one, first)
    async with asyncio.timeout(10):
        while not one.log_file.exists():
            await asyncio.sleep(0.02)
    assert [True] == restored
    await supervisor.stop([])


async def test_failing_callback_does_not_end_supervision(tmp_path: Path) -> None:
    """
    A process is restarted repeatedly even if the callback fails each time, which is not a problem
    of the process.
    """

    def fails() -> None:
        raise OSError("No space left on device")

    supervisor = Supervisor(fails)
    one = child(tmp_path, LIVES)
    await supervisor.start([one])
    for _ in range(2):
        first = one.pid
        os.kill(first, signal.SIGKILL)
        await restarted(one, first)
    async with asyncio.timeout(10):
        while "watch one" not in background.failing():
            await asyncio.sleep(0.02)
    assert not one.problem
    await supervisor.stop([])


async def test_failing_watcher_does_not_end_supervision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing watcher is restarted and reported, and its process comes back."""
    changed = asyncio.Event()
    supervisor = Supervisor(changed.set)
    one = child(tmp_path, LIVES)
    await supervisor.start([one])

    def broken(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise BrokenPipeError("nobody reads the log")

    monkeypatch.setattr("mesh.local.processes.supervisor.log.warning", broken)
    os.kill(one.pid, 9)
    async with asyncio.timeout(10):
        await changed.wait()

    assert ["watch one"] == background.failing()
    assert one.pid
    await supervisor.stop([])
    assert [] == background.failing()


async def test_restart_is_tried_until_it_succeeds(tmp_path: Path) -> None:
    """While a process cannot be restarted, the problem is reported; then it is restarted."""
    supervisor = Supervisor(lambda: None)
    program = tmp_path / "program"
    program.symlink_to(sys.executable)
    one = child(tmp_path, LIVES)
    one.command = [str(program), *one.command[1:]]
    await supervisor.start([one])
    first = one.pid
    program.unlink()
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(10):
        while not one.problem:
            await asyncio.sleep(0.02)
    assert "one cannot be restarted" in one.problem

    program.symlink_to(sys.executable)
    await restarted(one, first)
    async with asyncio.timeout(10):
        while one.problem:
            await asyncio.sleep(0.02)
    await supervisor.stop([])


async def test_process_that_is_ready_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restarted process that is not ready in time is a problem only until it is ready."""
    monkeypatch.setattr("mesh.local.processes.supervisor._RESTART_SECONDS", 0.5)
    changed = asyncio.Event()
    supervisor = Supervisor(changed.set)
    one = child(tmp_path, "import time; time.sleep(60)")
    mark = tmp_path / "one.ready"
    mark.write_text("up")
    await supervisor.start([one])
    mark.unlink()
    os.kill(one.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        while not one.problem:
            await asyncio.sleep(0.02)
    assert "was not ready within" in one.problem
    assert "cannot be restarted" not in one.problem

    mark.write_text("up")
    async with asyncio.timeout(10):
        await changed.wait()

    assert not one.problem
    assert 1 == one.restarts
    await supervisor.stop([])


async def test_process_that_stands_still_is_drained(tmp_path: Path) -> None:
    """A process stopped by SIGSTOP exits on SIGTERM, before it would be killed."""
    supervisor = Supervisor(lambda: None)
    one = child(tmp_path, LIVES)
    one.drain_seconds = 60
    await supervisor.start([one])
    os.kill(one.pid, signal.SIGSTOP)

    async with asyncio.timeout(10):
        await supervisor.stop([])


async def test_kill(tmp_path: Path) -> None:
    """A process that ignores SIGTERM is killed at once when everything is killed."""
    supervisor = Supervisor(lambda: None)
    one = child(tmp_path, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + LIVES)
    one.drain_seconds = 60
    await supervisor.start([one])
    stopping = asyncio.create_task(supervisor.stop([]))
    await asyncio.sleep(0.1)
    assert not stopping.done()

    supervisor.kill()

    async with asyncio.timeout(5):
        await stopping
