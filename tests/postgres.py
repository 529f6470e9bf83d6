"""A private PostgreSQL for tests: created in its own folder, stopped at the end."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.chassis.testing import free_port

_START_SECONDS = 60
UNPRIVILEGED = ("postgres", "nobody")
"""Who runs the server when the tests run as root, which PostgreSQL refuses."""


def _binaries() -> Path | None:
    """Return the folder with ``initdb`` and ``pg_ctl``; None if PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def required() -> Path:
    """Return the folder of the programs; skip the test if PostgreSQL is not installed."""
    found = _binaries()
    if found is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    return found


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """
    Run a server; yields ``postgresql+asyncpg://…`` of an empty database.

    Skips the test where PostgreSQL is not installed. ``pg_ctl -w`` waits until the server accepts
    connections: its port listens earlier, while it still answers "starting up".
    """
    bin_folder = required()
    folder = Path(tempfile.mkdtemp(prefix="amarre-postgres-"))
    user = _unprivileged() if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    port = free_port()

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [bin_folder / program, *arguments],
            check=True,
            capture_output=True,
            timeout=_START_SECONDS,
            user=user,
            cwd=folder,
        )

    data = str(folder / "data")
    options = (
        f"-h 127.0.0.1 -p {port} -k {folder}"
        " -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c shared_buffers=16MB"
        " -c max_connections=200"
    )
    try:
        run("initdb", "-D", data, "-U", "amarre", "-A", "trust", "-E", "UTF8", "--no-sync")
        log = str(folder / "log")
        run("pg_ctl", "start", "-D", data, "-w", "-l", log, "-o", options)
        try:
            yield f"postgresql+asyncpg://amarre@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "-D", data, "-m", "immediate")
    finally:
        shutil.rmtree(folder)


def _unprivileged() -> str:
    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise OSError(f"PostgreSQL does not run as root, and there is none of {UNPRIVILEGED}.")


def _version(initdb: Path) -> int:
    name = initdb.parent.parent.name
    return int(name) if name.isdecimal() else 0
