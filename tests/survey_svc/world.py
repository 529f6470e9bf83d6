"""The survey service in this process, called over real mTLS like the gateway does."""

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from amarre.survey.v1 import survey_service_pb2 as messages
from amarre.survey.v1.survey_service_pb2_grpc import (
    SurveyServiceStub,
    add_SurveyServiceServicer_to_server,
)
from pydantic import SecretStr

from mesh.chassis import tokens
from mesh.chassis.background import background
from mesh.chassis.call import User
from mesh.chassis.errors import from_rpc_error
from mesh.chassis.identity import SpiffeId
from mesh.chassis.testing import connected, served
from survey_svc.ports import Cache, Store
from survey_svc.redcap.client import RedcapApi
from survey_svc.redcap.project import RedcapProject
from survey_svc.requests.creation import Creation
from survey_svc.requests.listing import Listing
from survey_svc.requests.misses import Misses
from survey_svc.requests.watching import Watching
from survey_svc.service import SurveyService
from survey_svc.storage.memory_cache import MemoryCache
from survey_svc.storage.redis_store import RedisStore
from survey_svc.storage.sql_store import SqlStore
from survey_svc.study.profile import Profile
from survey_svc.study.study import Study
from tests.survey_svc.sandbox import Sandbox

REUSED_SECONDS = 30
"""How long a user's token is used again, as the gateway does."""
GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")


@dataclass
class World:
    """A running service: its stub for the gateway, and the parts that tests inspect."""

    stub: Any
    key: tokens.SigningKey
    store: Store
    creation: Creation
    port: int
    tokens: dict[str, tuple[float, str]] = field(default_factory=dict)

    def as_user(self, user: str, email: str = "ada@example.org") -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call for *user*."""
        minted_at, token = self.tokens.get(user, (0.0, ""))
        if time.monotonic() - minted_at > REUSED_SECONDS:
            token, _ = tokens.mint(
                self.key, User(user, "session", email), audience="survey", caller=GATEWAY
            )
            self.tokens[user] = time.monotonic(), token
        return (("authorization", f"Bearer {token}"),)

    async def create(self, user: str, **fields: Any) -> messages.CreateRequestResponse:
        """Create a request, by default with consent."""
        request = messages.CreateRequestRequest(**{"consent": True, **fields})
        answer: messages.CreateRequestResponse = await self.stub.CreateRequest(
            request, metadata=self.as_user(user)
        )
        return answer

    async def list(self, user: str, **fields: Any) -> messages.ListRequestsResponse:
        """List the requests of *user*."""
        answer: messages.ListRequestsResponse = await self.stub.ListRequests(
            messages.ListRequestsRequest(**fields), metadata=self.as_user(user)
        )
        return answer

    async def link(self, user: str, record: str, instrument: str) -> str:
        """Return the survey link of a request of *user*."""
        request = messages.GetLinkRequest(record=record, instrument=instrument)
        answer = await self.stub.GetLink(request, metadata=self.as_user(user))
        return str(answer.url)

    async def file(self, method: str, user: str, request: Any) -> tuple[str, str, bytes]:
        """Return media type, name and bytes of a file that *method* streams."""
        stream = getattr(self.stub, method)(request, metadata=self.as_user(user))
        chunks = [answer.chunk async for answer in stream]
        assert all(0 < len(chunk.data) <= 262144 for chunk in chunks)
        return chunks[0].media_type, chunks[0].filename, b"".join(chunk.data for chunk in chunks)


@contextlib.asynccontextmanager
async def running(
    sandbox: Sandbox,
    profile: Profile,
    svids: Path,
    store_url: str,
    *,
    cache: Cache | None = None,
) -> AsyncIterator[World]:
    """Run the service on *sandbox* with the store at *store_url*."""
    async with contextlib.AsyncExitStack() as stack:
        api = RedcapApi(sandbox.api_url, SecretStr(sandbox.token))
        stack.push_async_callback(api.close)
        project = RedcapProject(api, profile)
        study = Study(profile, project)
        await study.check()
        sandbox.clear_calls()
        store = await opened(store_url)
        stack.push_async_callback(store.close)
        cache = cache or MemoryCache()
        stack.push_async_callback(cache.close)
        listing = Listing(study, project, cache, Misses(30), scope=sandbox.url)
        creation = Creation(profile, project, store, listing, lambda: datetime.now(UTC))
        watching = Watching(profile, project, listing, per_user=5, total=500)
        service = SurveyService(
            study=study, project=project, listing=listing, creation=creation, watching=watching
        )
        await stack.enter_async_context(background("watch requests", watching.run))
        key = tokens.SigningKey.generate()
        register = partial(add_SurveyServiceServicer_to_server, service)
        port = await stack.enter_async_context(
            served(register, svids / "survey", audience="survey", key=key)
        )
        stub = await stack.enter_async_context(
            connected("survey", port, svids / "gateway", SurveyServiceStub)
        )
        yield World(stub, key, store, creation, port)


async def opened(url: str) -> Store:
    """Open the store that the URL names."""
    return await (RedisStore if url.startswith("redis") else SqlStore).open(url)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Return the reason of an error."""
    return from_rpc_error(error).contract.name
