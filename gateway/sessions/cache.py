"""Cache of verified sessions: session cookie to user token for one service."""

import asyncio
import contextlib
import enum
import hashlib
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
from amarre.auth.v1 import auth_pb2
from amarre.auth.v1 import auth_service_pb2 as pb

from mesh.chassis.background import spawn
from mesh.chassis.errors import UnauthenticatedError
from mesh.contract.reasons import MESSAGES

log = structlog.get_logger("sessions")

STALE_SECONDS = 3.0
"""
How long a verification by Auth is used while revocations are not pushed.

Auth's own answer may be 2 s old (``APPWRITE_STALENESS``), and a session that ended elsewhere may be
accepted for 5 s at most.
"""
TOKEN_MARGIN_SECONDS = 5.0
"""A token this close to its expiry is not used for a new call."""
MOST_SESSIONS = 10_000
"""Verifications kept, about 1 KiB each; the least recently used is evicted first."""
END_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds before each further attempt to end a session while Auth is unavailable."""
END_SECONDS = 3.0
"""Timeout of a call to Auth before ending the session is deferred."""
MOST_ENDING = 1_000
"""Sessions that are still to be ended; more are left to expire."""
_Key = tuple[bytes, str]
"""The hash of a session secret and the service that the token is for."""


class Ending(enum.IntEnum):
    """When sessions end; the last of several counts."""

    BEFORE = enum.auto()
    """They had ended, or there is none."""
    NOW = enum.auto()
    LATER = enum.auto()
    """Auth is unavailable; it is tried again."""


@dataclass(frozen=True)
class Session:
    """A verified session: its user and a token for one service."""

    user: auth_pb2.User = field(repr=False)
    token: str = field(repr=False)
    id: str = ""
    metadata: tuple[tuple[str, str], ...] = field(init=False, repr=False)
    """The metadata of a call on behalf of the user."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", (("authorization", f"Bearer {self.token}"),))


@dataclass(frozen=True, slots=True)
class _Entry:
    session: Session
    stale_at: float
    """When it must be verified again unless revocations are pushed."""
    ends_at: float


class SessionCache:
    """
    Verifies session secrets with Auth, each once at a time.

    A session that ends through this gateway is gone from it at once: ending one drops what is
    known about its user, and verifications in flight are not kept. A session that ends elsewhere
    is gone as soon as Auth pushes its revocation, or after `STALE_SECONDS` without a push.
    """

    def __init__(
        self, auth: Any, *, most: int = MOST_SESSIONS, now: Callable[[], float] = time.time
    ) -> None:
        self._auth = auth
        self._most = most
        self._now = now
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        # What each session, user and secret has among the entries, so that none is searched for.
        self._of: defaultdict[tuple[str, str | bytes], set[_Key]] = defaultdict(set)
        self._in_flight: dict[_Key, asyncio.Task[Session]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self.pushed = False
        """Whether Auth is pushing revocations to this process."""

    def __len__(self) -> int:
        return len(self._entries)

    async def verify(self, secret: str, audience: str) -> Session:
        """
        Return the session behind *secret* with a token for the service *audience*.

        Raises:
            UnauthenticatedError: *secret* is empty.
            grpc.aio.AioRpcError: Auth rejects the session or is unavailable.
        """
        if not secret:
            raise UnauthenticatedError(MESSAGES["UNAUTHENTICATED"])
        key = (_digest(secret), audience)
        entry = self._entries.get(key)
        if entry is not None:
            if self._now() < (entry.ends_at if self.pushed else entry.stale_at):
                self._entries.move_to_end(key)
                return entry.session
            self._remove(key)
        task = self._in_flight.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key, secret))
            task.add_done_callback(_retrieve)
            self._in_flight[key] = task
        # One caller may go away; the others still wait for the answer.
        return await asyncio.shield(task)

    async def end(
        self, *secrets: str, everywhere: bool = False, within_seconds: float = END_SECONDS
    ) -> "Ending":
        """
        End the sessions behind *secrets*, or all of their users.

        What Auth cannot end within *within_seconds* is tried again later.
        """
        ends_at = asyncio.get_running_loop().time() + within_seconds
        found = Ending.BEFORE
        for secret in secrets:
            outcome = Ending.LATER
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(ends_at):
                    outcome = await self._try_to_end(secret, everywhere=everywhere)
            if outcome is Ending.LATER:
                self.end_later(secret, everywhere=everywhere)
            found = max(found, outcome)
        return found

    def end_later(self, secret: str, *, everywhere: bool = False) -> None:
        """
        End the session behind *secret*, or all of its user, as soon as Auth can.

        It is tried after each of `END_PAUSES`. If this process stops before, or Auth stays
        unavailable for longer, the session expires by itself.
        """
        if len(self._ending) < MOST_ENDING:
            task = spawn("end of a session", self._keep_ending(secret, everywhere=everywhere))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _keep_ending(self, secret: str, *, everywhere: bool) -> None:
        for pause in END_PAUSES:
            await asyncio.sleep(pause)
            if await self._try_to_end(secret, everywhere=everywhere) is not Ending.LATER:
                return
        log.warning("session not ended", message="Auth was unavailable; the session expires.")

    async def _try_to_end(self, secret: str, *, everywhere: bool) -> "Ending":
        try:
            session = await self.verify(secret, "auth")
            request = pb.LogOutRequest(everywhere=everywhere)
            await self._auth.LogOut(request, metadata=session.metadata)
            self.forget_user(session.user.id)
        except grpc.aio.AioRpcError as exc:
            ended = exc.code() is grpc.StatusCode.UNAUTHENTICATED
            return Ending.BEFORE if ended else Ending.LATER
        finally:
            self.forget(secret)
        return Ending.NOW

    def forget(self, secret: str) -> None:
        """Drop what is known about *secret*."""
        self._drop("secret", _digest(secret))

    def forget_user(self, user_id: str) -> None:
        """Drop what is known about every session of a user."""
        self._drop("user", user_id)

    def forget_session(self, session_id: str) -> None:
        """Drop what is known about the session *session_id*."""
        self._drop("session", session_id)

    async def _ask(self, key: _Key, secret: str) -> Session:
        asked_at = self._now()
        task = asyncio.current_task()
        try:
            answer = await self._auth.VerifySession(
                pb.VerifySessionRequest(session_secret=secret, audience=key[1])
            )
            session = Session(answer.user, answer.user_token, answer.session_id)
            ends_at = min(
                answer.token_expire_time.seconds - TOKEN_MARGIN_SECONDS,
                answer.session_expire_time.seconds,
            )
            stale_at = min(asked_at + STALE_SECONDS, ends_at)
            # Whatever was dropped in the meantime may have been this session.
            if self._in_flight.get(key) is task:
                self._keep(key, _Entry(session, stale_at, ends_at))
            return session
        finally:
            if self._in_flight.get(key) is task:
                del self._in_flight[key]

    def _keep(self, key: _Key, entry: _Entry) -> None:
        self._entries[key] = entry
        for name in _names(key, entry):
            self._of[name].add(key)
        while len(self._entries) > self._most:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: _Key) -> None:
        entry = self._entries.pop(key)
        for name in _names(key, entry):
            keys = self._of[name]
            keys.discard(key)
            if not keys:
                del self._of[name]

    def _drop(self, kind: str, name: str | bytes) -> None:
        self._in_flight.clear()
        for key in tuple(self._of.get((kind, name), ())):
            self._remove(key)


def _names(key: _Key, entry: _Entry) -> tuple[tuple[str, str | bytes], ...]:
    return (
        ("secret", key[0]),
        ("user", entry.session.user.id),
        ("session", entry.session.id),
    )


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _retrieve(task: asyncio.Task[Session]) -> None:
    """Mark a failure as seen, in case every caller has gone."""
    if not task.cancelled():
        task.exception()
