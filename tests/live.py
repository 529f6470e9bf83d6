"""The whole local mesh, started once per transport for all tests that need it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TRANSPORTS = ("direct", "sidecar")


def free_base() -> int:
    """Return a port base whose whole range is free; each test worker has its own bases."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 7
    first = 4_000 + worker * 4_000
    for base in range(first, first + 3_500, 500):
        if all(_is_free(base + offset) for offset in (*range(100), 443)):
            return base
    raise OSError(f"no free range of ports from {first}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def running(folder: Path, *arguments: str, base: int | None = None) -> Iterator[dict[str, Any]]:
    """Run ``amarre up`` in *folder*; yields its ready file; stops it like Ctrl-C."""
    ready = folder / "ready-here.json"
    environment = os.environ | {"AMARRE_RATE_LIMITS": "off"}
    command = [
        *(sys.executable, "-m", "mesh.cli", "up"),
        *("--port-base", str(base or free_base()), "--data", str(folder / "data")),
        *("--ready-file", str(ready), *arguments),
    ]
    log = folder / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 90
        while not ready.exists():
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.05)
        yield json.loads(ready.read_text())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


@pytest.fixture(scope="session", params=TRANSPORTS)
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The ready file of a running mesh, once per transport."""
    folder = tmp_path_factory.mktemp("mesh")
    with running(folder, *(["--direct"] if request.param == "direct" else [])) as ready:
        yield ready
