"""
Auth with a locked database or a full disk: it serves what it can, rejects the rest with proper
errors, and recovers automatically.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest
from amarre.auth.v1 import auth_service_pb2 as pb
from amarre.auth.v1.auth_service_pb2_grpc import AuthServiceStub

from auth_svc.service import register
from auth_svc.storage.database import Database
from mesh.chassis.errors import from_rpc_error
from mesh.chassis.testing import FakeClock, connected, served
from tests.auth_svc.calls import log_in, sign_up
from tests.auth_svc.harness import Harness, embedded
from tests.mesh.local.conftest import disk, fill

OK = "OK"
UNAVAILABLE = "unavailable"
RECOVERY_SECONDS = 5.0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB for the database."""
    with disk(tmp_path / "disk", "1m") as mounted:
        yield mounted


@pytest.fixture
async def harness(folder: Path, clock: FakeClock) -> AsyncIterator[Harness]:
    """Auth with SQLite on that file system."""
    async with aclosing(Database(f"sqlite+aiosqlite:///{folder / 'auth.sqlite'}")) as database:
        await database.migrate()
        yield Harness(database, clock, embedded(database, clock))


@pytest.fixture
async def auth(harness: Harness, svids: Path) -> AsyncIterator[Any]:
    """A stub of Auth for the gateway."""
    registered = register(harness.service)
    async with (
        served(registered, svids / "auth", audience="auth", key=harness.key) as port,
        connected("auth", port, svids / "gateway", AuthServiceStub) as stub,
    ):
        yield stub


async def outcome(call: Any) -> str:
    """Return the outcome of *call*: OK, or the code of the error."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).contract.code
    return OK


def request_link(auth: Any, number: int) -> Any:
    """Write to the database: request a link for another address each time."""
    email = f"user{number}@example.org"
    client = f"192.0.2.{number % 250}"
    return auth.SignUp(pb.SignUpRequest(email=email, client_address=client))


def verify(auth: Any, secret: str) -> Any:
    """Read from the database: verify a session, like the gateway for each request."""
    return auth.VerifySession(pb.VerifySessionRequest(session_secret=secret, audience="survey"))


async def recovered(auth: Any) -> None:
    """Wait until Auth can write again."""
    async with asyncio.timeout(RECOVERY_SECONDS):
        while await outcome(request_link(auth, 1_000)) != OK:
            await asyncio.sleep(0.1)


async def test_full_disk(auth: Any, harness: Harness, folder: Path) -> None:
    """
    Writes fail as unavailable, never as internal errors; a verified session continues, and
    acknowledged writes are kept.
    """
    session = await log_in(auth, await sign_up(auth, harness))
    link = await sign_up(auth, harness, "grace@example.org")
    filler = fill(folder)

    outcomes = [await outcome(request_link(auth, number)) for number in range(40)]
    verified = await outcome(verify(auth, session.session_secret))

    assert UNAVAILABLE in outcomes
    assert set(outcomes) <= {OK, UNAVAILABLE}
    assert verified == OK
    filler.unlink()
    await recovered(auth)
    assert (await log_in(auth, link)).session_secret


async def test_locked_database(auth: Any, harness: Harness, folder: Path) -> None:
    """
    While another program holds the write lock, sessions are verified and links fail as unavailable
    or late; once it is released, links are sent again.
    """
    session = await log_in(auth, await sign_up(auth, harness))
    with contextlib.closing(sqlite3.connect(folder / "auth.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused = await outcome(request_link(auth, 1))
        verified = await outcome(verify(auth, session.session_secret))
        other.execute("ROLLBACK")

    assert refused in {UNAVAILABLE, "deadline_exceeded"}
    assert verified == OK
    await recovered(auth)
