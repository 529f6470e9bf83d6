"""Two replicas on one store, each kind of store, on the real sandbox."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from amarre.survey.v1 import survey_pb2 as pb
from amarre.survey.v1 import survey_service_pb2 as messages

from survey_svc.storage.redis_cache import RedisCache
from survey_svc.study.profile import Profile
from tests.survey_svc import servers
from tests.survey_svc.sandbox import Sandbox
from tests.survey_svc.world import World, reason_of, running


@pytest.fixture
async def replicas(
    sandbox: Sandbox, profile: Profile, svids: Path, store_url: str
) -> AsyncIterator[list[World]]:
    """Two replicas of the service."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running(sandbox, profile, svids, store_url))
            for _ in range(2)
        ]


class TestTogether:
    async def test_hundred_creations(
        self, replicas: list[World], sandbox: Sandbox, user: str
    ) -> None:
        """A hundred creations of one user on two replicas create exactly one record."""
        outcomes = await asyncio.gather(
            *(replicas[at % 2].create(user) for at in range(100)), return_exceptions=True
        )

        created = [o.id for o in outcomes if isinstance(o, messages.CreateRequestResponse)]
        refused = {reason_of(o) for o in outcomes if isinstance(o, grpc.aio.AioRpcError)}
        assert created == [record["record_id"] for record in sandbox.records(user)]
        assert 1 == len(created)
        assert refused <= {"OPEN_REQUEST_EXISTS", "UNAVAILABLE"}

    async def test_key_on_the_other_one(
        self, replicas: list[World], sandbox: Sandbox, user: str
    ) -> None:
        """A retry with the same key gets the same response from the other replica."""
        first = await replicas[0].create(user, idempotency_key="k")
        again = await replicas[1].create(user, idempotency_key="k")

        assert first == again
        assert 1 == len(sandbox.records(user))


@pytest.mark.redis
class TestSharedCache:
    async def test_creation_is_seen(
        self, sandbox: Sandbox, profile: Profile, svids: Path, tmp_path: Path, user: str
    ) -> None:
        """
        With a cache in Redis, a creation on one replica is on the other's list at once, and what
        one has fetched, the other need not.
        """
        url = f"sqlite+aiosqlite:///{tmp_path}/s.sqlite"
        async with contextlib.AsyncExitStack() as stack:
            redis = stack.enter_context(servers.redis(tmp_path))
            one, two = [
                await stack.enter_async_context(
                    running(sandbox, profile, svids, url, cache=RedisCache.at(redis))
                )
                for _ in range(2)
            ]
            assert 0 == len((await two.list(user)).requests)
            await one.create(user)
            sandbox.clear_calls()

            listed = await two.list(user)
            fetched = sandbox.calls()
            again = await one.list(user)

            assert 1 == len(listed.requests)
            assert pb.REQUEST_STATUS_TO_COMPLETE == listed.requests[0].status
            assert listed == again
            assert fetched == sandbox.calls()

    async def test_cache_is_unavailable(
        self, sandbox: Sandbox, profile: Profile, svids: Path, tmp_path: Path, user: str
    ) -> None:
        """Without its cache the service still responds."""
        url = f"sqlite+aiosqlite:///{tmp_path}/s.sqlite"
        cache = RedisCache.at("redis://127.0.0.1:1/0")
        async with running(sandbox, profile, svids, url, cache=cache) as world:
            created = await world.create(user)

            assert [created.id] == [request.id for request in (await world.list(user)).requests]
