"""Follows the sessions that Auth revokes, so that their user tokens are refused at once."""

from collections.abc import AsyncIterator, Sequence

import grpc
from amarre.auth.v1.auth_service_pb2 import WatchRevocationsRequest
from amarre.auth.v1.auth_service_pb2_grpc import AuthServiceStub


async def watch(auth: grpc.aio.Channel) -> AsyncIterator[Sequence[str]]:
    """Yield the ids of sessions that ended: first the recent ones, then each new one."""
    async for response in AuthServiceStub(auth).WatchRevocations(WatchRevocationsRequest()):
        yield response.session_ids
