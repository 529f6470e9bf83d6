"""The session cache: one verification at a time, bounded, invalidated by pushed revocations."""

import asyncio
import time

import pytest
from amarre.auth.v1 import auth_service_pb2 as pb

from gateway.sessions import revocations
from gateway.sessions.cache import STALE_SECONDS, SessionCache
from mesh.chassis.errors import UnauthenticatedError
from tests.gateway.conftest import World
from tests.gateway.rest.test_streams import eventually


class TestCache:
    async def test_one_verification(self, world: World) -> None:
        """A hundred concurrent requests of a session cause one verification."""
        secret = world.sign_in()
        cache = SessionCache(world.gateway.api.clients.stubs["auth"])
        sessions = await asyncio.gather(*(cache.verify(secret, "survey") for _ in range(100)))
        assert 1 == world.auth.does.count("VerifySession")
        assert 1 == len({session.token for session in sessions})

    async def test_caller_disconnects(self, world: World) -> None:
        """A cancelled caller does not affect the others."""
        secret = world.sign_in()
        cache = SessionCache(world.gateway.api.clients.stubs["auth"])
        first = asyncio.create_task(cache.verify(secret, "survey"))
        second = asyncio.create_task(cache.verify(secret, "survey"))
        await asyncio.sleep(0)
        first.cancel()
        assert "ada" == (await second).user.id

    async def test_failure_is_not_kept(self, world: World) -> None:
        """A rejected session is verified again, and fails for each of its callers."""
        world.auth.does.failures["VerifySession"] = UnauthenticatedError("Unknown.")
        cache = SessionCache(world.gateway.api.clients.stubs["auth"])
        asked = [cache.verify("a" * 43, "survey") for _ in range(3)]
        failed = await asyncio.gather(*asked, return_exceptions=True)
        assert 3 == len([one for one in failed if isinstance(one, Exception)])
        assert 0 == len(cache)

    async def test_bounded(self, world: World) -> None:
        """The least recently used session is evicted when the cache is full."""
        secrets = [world.auth.open(user_id=f"user{n}") for n in range(4)]
        cache = SessionCache(world.gateway.api.clients.stubs["auth"], most=3)
        for secret in secrets[:3]:
            await cache.verify(secret, "survey")
        await cache.verify(secrets[0], "survey")
        await cache.verify(secrets[3], "survey")
        assert 3 == len(cache)
        before = world.auth.does.count("VerifySession")
        await cache.verify(secrets[0], "survey")
        assert before == world.auth.does.count("VerifySession")
        await cache.verify(secrets[1], "survey")
        assert before + 1 == world.auth.does.count("VerifySession")

    async def test_longer_while_pushed(self, world: World) -> None:
        """While revocations are pushed, a verification is valid until its token nearly expires."""
        now = 0.0
        secret = world.sign_in()
        start = time.time()
        cache = SessionCache(world.gateway.api.clients.stubs["auth"], now=lambda: start + now)
        await cache.verify(secret, "survey")
        cache.pushed = True
        now = STALE_SECONDS + 30
        await cache.verify(secret, "survey")
        assert 1 == world.auth.does.count("VerifySession")
        cache.pushed = False
        await cache.verify(secret, "survey")
        assert 2 == world.auth.does.count("VerifySession")
        cache.pushed = True
        now += 56
        await cache.verify(secret, "survey")
        assert 3 == world.auth.does.count("VerifySession")


class TestRevocations:
    @pytest.mark.parametrize(
        "revoked",
        [
            pytest.param(pb.WatchRevocationsResponse(session_ids=["s0"]), id="session"),
            pytest.param(pb.WatchRevocationsResponse(user_ids=["ada"]), id="user"),
        ],
    )
    async def test_pushed(self, world: World, revoked: pb.WatchRevocationsResponse) -> None:
        """A session that ends elsewhere is removed here once Auth pushes it; others stay."""
        secret = world.sign_in()
        other = world.auth.open(user_id="grace")
        sessions = world.gateway.api.sessions
        following = asyncio.create_task(world.gateway.follow_revocations())
        try:
            await eventually(lambda: sessions.pushed)
            for one in (secret, other):
                await sessions.verify(one, "survey")
            assert 2 == len(sessions)
            await world.auth.revocations.put(revoked)
            await eventually(lambda: len(sessions) == 1)
            await sessions.verify(other, "survey")
            assert 2 == world.auth.does.count("VerifySession")
        finally:
            following.cancel()
        await eventually(lambda: not sessions.pushed)

    async def test_silence(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without heartbeats the push counts as failed, and entries expire quickly again."""
        monkeypatch.setattr(revocations, "SILENT_SECONDS", 0.2)
        sessions = world.gateway.api.sessions
        watch = world.gateway.api.clients.stubs["auth"].WatchRevocations
        with pytest.raises(TimeoutError):
            await revocations.follow(watch, sessions)
        assert not sessions.pushed

    async def test_end_of_stream(self, world: World) -> None:
        """The stream is reopened when it ends."""
        following = asyncio.create_task(world.gateway.follow_revocations())
        try:
            for opened in (1, 2, 3):
                await eventually(
                    lambda opened=opened: world.auth.does.count("WatchRevocations") >= opened  # type: ignore[misc]
                )
                await world.auth.revocations.put(None)
        finally:
            following.cancel()
