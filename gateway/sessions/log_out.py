"""Log-out: ends the sessions of a request, whatever else is wrong with it."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from gateway.server.admission import received_at
from gateway.sessions import cookies
from gateway.sessions.cache import Ending, SessionCache
from mesh.chassis.errors import MeshError

BODY_SECONDS = 1.0
"""How long log-out waits for its body, which contains only an option."""
DEADLINE_SECONDS = 3.0
"""Deadline of log-out, from the first byte at the edge."""
Read = TypeVar("Read")


async def optional(reading: Awaitable[Read]) -> Read | None:
    """Return what *reading* the body returns; None if it is invalid, too large or incomplete."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await reading
    except (MeshError, ClientDisconnect, TimeoutError):
        return None


async def end(sessions: SessionCache, request: Request, *, everywhere: bool) -> Ending:
    """End the session of each session cookie, or all sessions of their users."""
    left = received_at(request.scope) + DEADLINE_SECONDS - asyncio.get_running_loop().time()
    secrets = cookies.read_all(request)
    return await sessions.end(*secrets, everywhere=everywhere, within_seconds=max(0, left))
