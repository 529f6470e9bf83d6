"""Test helpers: in-process servers and channels, a fake clock."""

import contextlib
import itertools
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Container, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc

from mesh.chassis.channel import channel
from mesh.chassis.config import MeshSettings
from mesh.chassis.server import Check, Register, Server
from mesh.chassis.tokens import SigningKey, TokenVerifier
from mesh.contract.policy import Mesh


class FakeClock:
    """A clock that only moves when advanced; starts at a whole second."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def time(self) -> float:
        """Return the Unix time; a replacement for ``time.time``."""
        return self.now.timestamp()

    def advance(self, by: timedelta) -> None:
        """Advance the clock by *by*."""
        self.now += by


class FixedKeys:
    """A key set with the public keys of *keys*."""

    def __init__(self, *keys: SigningKey) -> None:
        self._keys = {key.kid: key.private.public_key() for key in keys}

    async def get(self, kid: str) -> Any:
        """Return the key with the id *kid*; None if there is none."""
        return self._keys.get(kid)


_next_port = itertools.count(secrets.randbelow(12_000))


def free_port() -> int:
    """
    Return a port of 127.0.0.1 that is free now and below the ephemeral range.

    Each process starts at a different offset, so that two of them do not take the same port
    before either uses it. `random` would give the same to both: hypothesis seeds it.
    """
    for _ in range(1_000):
        port = 20_000 + next(_next_port) % 12_000
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port between 20000 and 32000")


@contextlib.asynccontextmanager
async def served(
    register: Register,
    svid_dir: Path,
    *,
    audience: str = "",
    key: SigningKey | None = None,
    checks: Mapping[str, Check] | None = None,
    watched: Mapping[str, Check] | None = None,
    mesh: Mesh | None = None,
    revoked: Container[str] = (),
) -> AsyncIterator[int]:
    """Serve over real mTLS with the SVID in *svid_dir*; yields the port.

    User tokens signed with *key* for *audience* are accepted.
    """
    settings = MeshSettings(
        listen=f"127.0.0.1:{free_port()}", svid_dir=svid_dir, drain_timeout=timedelta(seconds=1)
    )
    tokens = TokenVerifier(FixedKeys(key), audience=audience, revoked=revoked) if key else None
    server = Server(settings, register, tokens=tokens, checks=checks, watched=watched, mesh=mesh)
    async with server:
        yield server.port


@contextlib.asynccontextmanager
async def connected(
    service: str, port: int, svid_dir: Path, stub: Callable[[grpc.aio.Channel], Any]
) -> AsyncIterator[Any]:
    """Yield a stub for *service* on *port*, called with the SVID in *svid_dir*."""
    settings = MeshSettings(peers={service: f"127.0.0.1:{port}"}, svid_dir=svid_dir)
    async with channel(service, settings) as live:
        yield stub(live)
