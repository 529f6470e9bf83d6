"""Follows the sessions that Auth revokes, so that their user tokens are rejected at once."""

from collections.abc import AsyncIterator, Sequence

import grpc
from amarre.auth.v1.auth_service_pb2 import WatchRevocationsRequest
from amarre.auth.v1.auth_service_pb2_grpc import AuthServiceStub


async def watch(auth: grpc.aio.Channel) -> AsyncIterator[Sequence[str]]:
    """Yield the ids of revoked sessions: first recent ones, then new ones."""
    async for response in AuthServiceStub(auth).WatchRevocations(WatchRevocationsRequest()):
        yield response.session_ids
