"""Verifies, lists and ends sessions, and issues the user tokens of verified ones."""

import base64
import binascii
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from auth_svc.hashing import digest
from auth_svc.metrics import ALL_ENDED, ENDED
from auth_svc.ports import (
    OPERATOR,
    SECOND_FACTOR,
    Clock,
    Directory,
    Revocation,
    Session,
    User,
    Verified,
)
from auth_svc.sessions.revocations import Revocations
from auth_svc.sessions.second_factor import SecondFactorPolicy
from mesh.chassis import call
from mesh.chassis.errors import InvalidRequestError, UnauthenticatedError, Violation
from mesh.chassis.identity import SpiffeId
from mesh.chassis.telemetry import pseudonym
from mesh.chassis.tokens import SigningKey, mint

log = structlog.get_logger("sessions")

MAX_CACHED_SESSIONS = 10_000
TOKEN_MARGIN = timedelta(seconds=30)
"""A cached token that is handed out is valid for at least this long."""
PAGE_SIZE, MAX_PAGE_SIZE = 50, 200


@dataclass(frozen=True)
class IssuedToken:
    """A user token for one service, and the session that it was issued for."""

    user: User
    session: Session
    token: str = field(repr=False)
    token_expires_at: datetime


@dataclass
class _CachedSession:
    """A verified session: the time of verification, and its tokens by audience and caller."""

    verified: Verified
    at: datetime
    tokens: dict[tuple[str, str], IssuedToken]


class Sessions:
    """
    Verifies, lists and ends sessions.

    A verified session is cached for `staleness`. Revocations remove it from the cache: at once
    if made by this replica, within a second if made by another.
    """

    def __init__(
        self,
        directory: Directory,
        signing_key: Callable[[], SigningKey],
        clock: Clock,
        *,
        revocations: Revocations,
        second_factor: SecondFactorPolicy,
        staleness: timedelta = timedelta(seconds=2),
        operators: Collection[str] = (),
    ) -> None:
        self._directory = directory
        self._signing_key = signing_key
        self._clock = clock
        self._revocations = revocations
        self.second_factor = second_factor
        self._staleness = staleness
        self._operators = frozenset(operators)
        self._cache: OrderedDict[bytes, _CachedSession] = OrderedDict()
        self._generation = 0
        revocations.listen(self._forget)

    async def issue_token(self, secret: str, *, audience: str, caller: SpiffeId) -> IssuedToken:
        """
        Return a token of the session behind *secret*, valid for *audience* and *caller*.

        Raises:
            UnauthenticatedError: The session is unknown or has ended.
            UnavailableError: The identity provider is unavailable.
        """
        now = self._clock()
        found = self._cached(digest(secret), now) or await self._verify(secret, now)
        wanted = audience, str(caller)
        issued = found.tokens.get(wanted)
        if issued is None or issued.token_expires_at - now < TOKEN_MARGIN:
            issued = self._mint(found.verified, audience, caller, now)
            found.tokens[wanted] = issued
        return issued

    async def page(self, user_id: str, *, size: int, token: str) -> tuple[list[Session], str]:
        """
        Return one page of the user's sessions, newest first, and the token of the next page.

        Raises:
            InvalidRequestError: The page token was not issued by this service.
        """
        start = _decode(token)
        size = min(size or PAGE_SIZE, MAX_PAGE_SIZE)
        found = await self._directory.sessions(user_id)
        page = found[start : start + size]
        more = start + size < len(found)
        return page, _encode(start + size) if more else ""

    async def end(self, user_id: str, session_id: str) -> None:
        """End one session of the user and revoke its tokens."""
        if await self._directory.end_session(user_id, session_id):
            await self._revocations.revoke([session_id])
        ENDED.inc()
        log.info("session ended", user=pseudonym(user_id))

    async def end_all(self, user_id: str) -> None:
        """End all sessions of the user and revoke their tokens."""
        await self._revocations.revoke(await self._directory.end_sessions(user_id))
        ALL_ENDED.inc()
        log.info("all sessions ended", user=pseudonym(user_id))

    async def user_changed(self, user_id: str) -> None:
        """Force a new verification of the user's sessions, here and wherever they are cached."""
        await self._revocations.user_changed(user_id)

    def _cached(self, key: bytes, now: datetime) -> _CachedSession | None:
        cached = self._cache.get(key)
        if cached is None:
            return None
        if (
            timedelta(0) <= now - cached.at < self._staleness
            and now < cached.verified.session.expires_at
        ):
            return cached
        del self._cache[key]
        return None

    async def _verify(self, secret: str, now: datetime) -> _CachedSession:
        generation = self._generation
        verified = await self._directory.find_session(secret)
        if verified is None or verified.session.expires_at <= now:
            raise UnauthenticatedError("The session is unknown or has ended; sign in again.")
        found = _CachedSession(replace(verified, user=self._with_roles(verified.user)), now, {})
        # A session that ended during the call to the provider must not be cached.
        if generation == self._generation:
            self._cache[digest(secret)] = found
            while len(self._cache) > MAX_CACHED_SESSIONS:
                self._cache.popitem(last=False)
        return found

    def _with_roles(self, user: User) -> User:
        """Return *user* with the labels that the settings add to those of the provider."""
        labels = dict.fromkeys(user.labels)
        if user.email in self._operators:
            labels[OPERATOR] = None
        if self.second_factor.is_required_for(labels):
            labels[SECOND_FACTOR] = None
        return replace(user, labels=tuple(labels))

    def _mint(
        self, verified: Verified, audience: str, caller: SpiffeId, now: datetime
    ) -> IssuedToken:
        user, session = verified.user, verified.session
        token, ends_at = mint(
            self._signing_key(),
            call.User(
                user.id,
                session.id,
                user.email,
                user.labels,
                # The provider's clock may be ahead of this one.
                signed_in_at=int(min(session.created_at, now).timestamp()),
                partial=SECOND_FACTOR in user.labels and not session.by_passkey,
            ),
            audience=audience,
            caller=caller,
            now=now.timestamp,
        )
        return IssuedToken(user, session, token, ends_at)

    def _forget(self, revoked: Revocation) -> None:
        self._generation += 1
        stale = [
            key
            for key, cached in self._cache.items()
            if revoked.session_id == cached.verified.session.id
            or revoked.user_id == cached.verified.user.id
        ]
        for key in stale:
            del self._cache[key]


def _encode(start: int) -> str:
    return base64.urlsafe_b64encode(str(start).encode()).decode()


def _decode(token: str) -> int:
    if not token:
        return 0
    try:
        start = int(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError):
        start = -1
    if not 0 <= start <= 1_000_000 or _encode(start) != token:
        raise InvalidRequestError(
            "The page token was not issued by this service.",
            violations=[Violation("page_token", "use the next_page_token of the previous page")],
        )
    return start
