"""Follows the sessions that Auth revokes, so that cached verifications end at once."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import grpc
import structlog
from amarre.auth.v1 import auth_service_pb2 as pb

from gateway.sessions.cache import SessionCache

log = structlog.get_logger("sessions")

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
SILENT_SECONDS = 12.0
"""Auth sends a heartbeat every 5 s; after two missed ones the push has failed."""


async def follow(watch: Callable[..., Any], sessions: SessionCache) -> None:
    """
    Apply pushed revocations to *sessions* until the stream of *watch* ends.

    Raises:
        grpc.aio.AioRpcError: Auth is unavailable.
        TimeoutError: Auth has gone silent.
    """
    stream = watch(pb.WatchRevocationsRequest())
    try:
        while True:
            async with asyncio.timeout(SILENT_SECONDS):
                response = await stream.read()
            if response is grpc.aio.EOF:
                return
            for session_id in response.session_ids:
                sessions.forget_session(session_id)
            for user_id in response.user_ids:
                sessions.forget_user(user_id)
            # The first response holds what was revoked before the stream began.
            sessions.pushed = True
    finally:
        sessions.pushed = False
        stream.cancel()


async def follow_always(watch: Callable[..., Any], sessions: SessionCache) -> None:
    """Follow revocations until cancelled; reopen the stream when it ends or fails."""
    pause = _SHORTEST_PAUSE
    while True:
        try:
            await follow(watch, sessions)
            pause = _SHORTEST_PAUSE
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                pause = _SHORTEST_PAUSE  # Lifetime given by the contract.
            else:
                log.warning("revocations interrupted", fault=type(error).__name__)
        await asyncio.sleep(pause * random.uniform(1, 1.5))  # noqa: S311 - jitter
        pause = min(2 * pause, _LONGEST_PAUSE)
