"""Redis and PostgreSQL that a test can restart, if installed."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from mesh.chassis.testing import free_port

START_SECONDS = 60.0
Restart = Callable[[], None]
Run = Callable[[Path], AbstractContextManager[tuple[str, Restart]]]


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[tuple[str, Restart]]:
    """Run a persistent Redis; yields its URL and a restart function."""
    port = free_port()
    command = [
        *("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)),
        *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
    ]
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True))
        _until_listens(port)

    def stop() -> None:
        process = running.pop()
        process.send_signal(signal.SIGTERM)
        process.wait(30)

    def restart() -> None:
        stop()
        start()

    start()
    try:
        yield f"redis://127.0.0.1:{port}/0", restart
    finally:
        stop()


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[tuple[str, Restart]]:
    """Run PostgreSQL; yields the URL of an empty database and a restart function."""
    programs = _postgres_programs()
    assert programs is not None
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    shutil.chown(folder, user)
    port, data = free_port(), folder / "data"

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [programs / program, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=START_SECONDS,
            user=user if os.geteuid() == 0 else None,
            cwd=folder,
        )

    options = f"-p {port} -h 127.0.0.1 -k {folder}"
    control = ("-D", str(data), "-w", "-m", "fast", "-l", str(folder / "log"), "-o", options)
    run("initdb", "-D", str(data), "-U", "amarre", "--auth=trust", "--no-sync")
    run("pg_ctl", *control, "start")
    try:
        yield (
            f"postgresql+asyncpg://amarre@127.0.0.1:{port}/postgres",
            lambda: run("pg_ctl", *control, "restart"),
        )
    finally:
        run("pg_ctl", *control, "stop")


def installed() -> dict[str, Run]:
    """Return how to run each installed store, by the variable of its URL."""
    found: dict[str, Run] = {}
    if shutil.which("redis-server"):
        found["AMARRE_SURVEY_STORE"] = redis
    if _postgres_programs():
        found["AMARRE_AUTH_DATABASE"] = postgres
    return found


def _postgres_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def _until_listens(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return
