"""Tokens of a session that Auth ended are rejected by Survey at once."""

import asyncio
import functools
from pathlib import Path

from amarre.auth.v1.auth_service_pb2 import WatchRevocationsResponse
from amarre.auth.v1.auth_service_pb2_grpc import add_AuthServiceServicer_to_server

from mesh.chassis.background import background
from mesh.chassis.channel import channel
from mesh.chassis.config import MeshSettings
from mesh.chassis.credentials.revocations import RevokedSessions
from mesh.chassis.testing import served
from mesh.chassis.tokens import SigningKey
from survey_svc.revocations import watch
from tests.gateway.fakes import FakeAuth

WAIT_SECONDS = 20.0


async def until(revoked: RevokedSessions, session_id: str) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while session_id not in revoked:
            await asyncio.sleep(0.01)


async def test_follows_auth(svids: Path) -> None:
    """Sessions that Auth streams over mutual TLS are revoked here, also after Auth restarted."""
    auth = FakeAuth(SigningKey.generate())
    register = functools.partial(add_AuthServiceServicer_to_server, auth)
    revoked = RevokedSessions()
    async with served(register, svids / "auth") as port:
        peers = {"auth": f"127.0.0.1:{port}"}
        settings = MeshSettings(peers=peers, svid_dir=svids / "survey")
        async with (
            channel("auth", settings) as live,
            background("follow revocations", lambda: revoked.follow(lambda: watch(live))),
        ):
            auth.revocations.put_nowait(WatchRevocationsResponse(session_ids=["one"]))
            await until(revoked, "one")
            auth.revocations.put_nowait(None)
            auth.revocations.put_nowait(WatchRevocationsResponse(session_ids=["two"]))
            await until(revoked, "two")
