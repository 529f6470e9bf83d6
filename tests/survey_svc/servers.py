"""Real Redis and PostgreSQL servers of this machine, on free ports, with nothing in them."""

import contextlib
import getpass
import os
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
    """Run a Redis that keeps nothing on disk; yields its URL."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed (apt: redis-server)")
    port = free_port()
    command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    with _process([*command, "--save", "", "--appendonly", "no"], folder / "redis.log"):
        _until_listens(port, "redis-server")
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run a PostgreSQL cluster of its own; yields the URL for asyncpg."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("initdb") or next((str(b / "initdb") for b in binaries[::-1]), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed (apt: postgresql)")
    home, port = Path(found).resolve().parent, free_port()
    data = folder / "data"
    owner = _not_root(folder)
    initialise = [str(home / "initdb"), "-D", str(data), "-U", "amarre", "-A", "trust", "-N"]
    subprocess.run([*owner, *initialise], check=True, capture_output=True, cwd=folder)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": "off",
        "max_connections": "200",
    }
    command = [*owner, str(home / "postgres"), "-D", str(data)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    with _process(command, folder / "postgres.log"):
        _until_listens(port, "postgres")
        yield f"postgresql+asyncpg://amarre@127.0.0.1:{port}/postgres"


def _not_root(folder: Path) -> list[str]:
    """Return what runs a command as somebody else: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip(f"PostgreSQL does not run as {getpass.getuser()}, and setpriv is missing")
    nobody = 65534
    os.chown(folder, nobody, nobody)
    for parent in folder.parents:
        if parent.owner() == getpass.getuser() and parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o001)
    return [setpriv, f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups"]


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
