"""Cache of verified sessions: session cookie to user token for one service."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
from amarre.auth.v1 import auth_pb2
from amarre.auth.v1 import auth_service_pb2 as pb

from mesh.chassis.errors import MeshError, UnauthenticatedError

log = structlog.get_logger("sessions")

STALE_SECONDS = 3.0
"""
How long a verification by Auth is used.

A replica of Auth may itself trust its cache for 2 s (``AMARRE_AUTH_SESSION_CACHE``), and a
session that ended elsewhere may be accepted for 5 s at most.
"""
TOKEN_MARGIN_SECONDS = 5.0
"""A token this close to its expiry is not used for a new call."""
_MOST_CACHED = 10_000


@dataclass(frozen=True)
class Session:
    """A verified session: its user and a token for one service."""

    user: auth_pb2.User = field(repr=False)
    token: str = field(repr=False)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call on behalf of the user."""
        return (("authorization", f"Bearer {self.token}"),)


class SessionCache:
    """Verifies session secrets with Auth.

    A session that ends through this gateway is gone from it at once: closing one drops what is
    remembered of its user, and answers of Auth that were on their way are not remembered.
    """

    def __init__(
        self,
        auth: Any,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._auth = auth
        self._now = now
        self._known: OrderedDict[tuple[bytes, str], tuple[float, Session]] = OrderedDict()
        self._generation = 0

    async def verify(self, secret: str, audience: str) -> Session:
        """Return the session behind *secret* with a token for the service *audience*.

        Raises:
            UnauthenticatedError: *secret* is empty.
            grpc.aio.AioRpcError: Auth rejects the session or is unavailable.
        """
        if not secret:
            raise UnauthenticatedError("Not signed in.")
        key = (_digest(secret), audience)
        known = self._known.get(key)
        if known is not None and self._now() < known[0]:
            return known[1]
        generation, asked_at = self._generation, self._now()
        answer = await self._auth.VerifySession(
            pb.VerifySessionRequest(session_secret=secret, audience=audience)
        )
        session = Session(answer.user, answer.user_token)
        good_until = min(
            asked_at + STALE_SECONDS,
            answer.token_expire_time.seconds - TOKEN_MARGIN_SECONDS,
            answer.session_expire_time.seconds,
        )
        if generation == self._generation:
            self._remember(key, good_until, session)
        return session

    async def end(self, secret: str) -> None:
        """End the session behind *secret*, which another one replaces in this browser.

        Whether that works is no matter of the new session's: where Auth cannot do it, the old
        one ends by itself.
        """
        try:
            session = await self.verify(secret, "auth")
            await self._auth.LogOut(pb.LogOutRequest(), metadata=session.metadata())
        except (MeshError, grpc.aio.AioRpcError) as exc:
            log.info("replaced session not ended", fault=type(exc).__name__)
        self.forget(secret)

    def forget(self, secret: str) -> None:
        """Drop what is remembered of *secret*."""
        digest = _digest(secret)
        self._drop(lambda key, _: key[0] == digest)

    def forget_user(self, user_id: str) -> None:
        """Drop what is remembered of every session of a user."""
        self._drop(lambda _, session: session.user.id == user_id)

    def _drop(self, ended: Callable[[tuple[bytes, str], Session], bool]) -> None:
        self._generation += 1
        gone = [key for key, (_, session) in self._known.items() if ended(key, session)]
        for key in gone:
            del self._known[key]

    def _remember(self, key: tuple[bytes, str], good_until: float, session: Session) -> None:
        self._known[key] = good_until, session
        self._known.move_to_end(key)
        while len(self._known) > _MOST_CACHED:
            self._known.popitem(last=False)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
