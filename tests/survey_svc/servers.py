"""A real, empty Redis on a free port."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.chassis.testing import free_port

READY_SECONDS = 30


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run a Redis without persistence; yields its URL."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed (apt: redis-server)")
    port = free_port()
    command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    with _process([*command, "--save", "", "--appendonly", "no"], folder / "redis.log"):
        _until_listens(port, "redis-server")
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd="/")
        try:
            yield
        finally:
            process.terminate()
            process.wait(10)


def _until_listens(port: int, name: str) -> None:
    ends_at = time.monotonic() + READY_SECONDS
    while time.monotonic() < ends_at:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"{name} does not listen on {port}.")
