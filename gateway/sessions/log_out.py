"""Log-out: ends the sessions of a request, whatever else is wrong with it."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request

from gateway.server.admission import received_at
from gateway.sessions import cookies
from gateway.sessions.cache import Ending, SessionCache
from mesh.chassis.errors import MeshError

BODY_SECONDS = 1.0
"""How long log-out waits for its body, which contains only an option."""
DEADLINE_SECONDS = 3.0
"""Deadline of log-out, from the first byte at the edge."""


async def everywhere(request: Request, read: Callable[[Request], Awaitable[bool]]) -> bool:
    """Return whether *request* asks to end all sessions, which *read* reads.

    A request that is invalid, too large or incomplete may have asked for that.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            if not await request.body() and not request.url.query:
                return False
            return await read(request)
    except (MeshError, ClientDisconnect, TimeoutError):
        return True


async def end(sessions: SessionCache, request: Request, *, everywhere: bool) -> Ending:
    """End the session of each session cookie, or all sessions of their users."""
    left = received_at(request.scope) + DEADLINE_SECONDS - asyncio.get_running_loop().time()
    secrets = cookies.read_all(request)
    return await sessions.end(*secrets, everywhere=everywhere, within_seconds=max(0, left))
