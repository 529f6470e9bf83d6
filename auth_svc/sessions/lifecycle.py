"""The rules of sessions: who a secret belongs to, which tokens it earns, and when it ends."""

import base64
import binascii
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from auth_svc.hashing import digest
from auth_svc.metrics import ALL_ENDED, ENDED
from auth_svc.ports import OPERATOR, SECOND_FACTOR, Clock, Directory, Session, User, Verified
from auth_svc.sessions.second_factor import SecondFactorPolicy
from mesh.chassis import call
from mesh.chassis.errors import InvalidRequestError, UnauthenticatedError, Violation
from mesh.chassis.identity import SpiffeId
from mesh.chassis.telemetry import pseudonym
from mesh.chassis.tokens import SigningKey, mint

log = structlog.get_logger("sessions")

MAX_CACHED_SESSIONS = 10_000
TOKEN_MARGIN = timedelta(seconds=30)
"""A token that is handed out again is good for at least so long."""
PAGE_SIZE, LARGEST_PAGE = 50, 200


@dataclass(frozen=True)
class IssuedToken:
    """Who the user is, and a token that says so to one service."""

    user: User
    session: Session
    token: str = field(repr=False)
    token_expires_at: datetime


@dataclass
class _Remembered:
    """A verified secret: since when, and the tokens minted for it."""

    verified: Verified
    at: datetime
    tokens: dict[tuple[str, str], IssuedToken]


class Sessions:
    """Verifies, lists and ends sessions.

    A verified secret is believed for `staleness` without asking the directory again. Sessions
    that end here are forgotten at once; those that end at another replica within that time.
    """

    def __init__(
        self,
        directory: Directory,
        signing_key: Callable[[], SigningKey],
        clock: Clock,
        *,
        second_factor: SecondFactorPolicy,
        staleness: timedelta = timedelta(seconds=2),
        operators: Collection[str] = (),
    ) -> None:
        self._directory = directory
        self._signing_key = signing_key
        self._clock = clock
        self.second_factor = second_factor
        self._staleness = staleness
        self._operators = frozenset(operators)
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._ends = 0

    async def issue_token(self, secret: str, *, audience: str, caller: SpiffeId) -> IssuedToken:
        """Return who *secret* belongs to, with a token for *caller* to show to *audience*.

        Raises:
            UnauthenticatedError: The session is unknown or has ended.
            UnavailableError: The directory cannot be asked.
        """
        now = self._clock()
        found = self._recall(digest(secret), now) or await self._verify(secret, now)
        wanted = audience, str(caller)
        issued = found.tokens.get(wanted)
        if issued is None or issued.token_expires_at - now < TOKEN_MARGIN:
            issued = self._mint(found.verified, audience, caller, now)
            found.tokens[wanted] = issued
        return issued

    async def page(self, user_id: str, *, size: int, token: str) -> tuple[list[Session], str]:
        """Return one page of the user's sessions, newest first, and the token of the next page.

        Raises:
            InvalidRequestError: The page token is none that was given.
        """
        start = _decode(token)
        size = min(size or PAGE_SIZE, LARGEST_PAGE)
        found = await self._directory.sessions(user_id)
        page = found[start : start + size]
        more = start + size < len(found)
        return page, _encode(start + size) if more else ""

    async def end(self, user_id: str, session_id: str) -> None:
        """End one session of the user."""
        try:
            await self._directory.end_session(user_id, session_id)
        finally:
            self._forget(lambda known: known.session.id == session_id)
        ENDED.inc()
        log.info("session ended", user=pseudonym(user_id))

    async def end_all(self, user_id: str) -> None:
        """End all sessions of the user."""
        try:
            await self._directory.end_sessions(user_id)
        finally:
            self.forget_user(user_id)
        ALL_ENDED.inc()
        log.info("all sessions ended", user=pseudonym(user_id))

    def forget_user(self, user_id: str) -> None:
        """Ask the directory anew about every session of the user."""
        self._forget(lambda known: known.user.id == user_id)

    def _recall(self, key: bytes, now: datetime) -> _Remembered | None:
        known = self._remembered.get(key)
        if known is None:
            return None
        if (
            timedelta(0) <= now - known.at < self._staleness
            and now < known.verified.session.expires_at
        ):
            return known
        del self._remembered[key]
        return None

    async def _verify(self, secret: str, now: datetime) -> _Remembered:
        ends = self._ends
        verified = await self._directory.find_session(secret)
        if verified is None or verified.session.expires_at <= now:
            raise UnauthenticatedError("The session is unknown or has ended; sign in again.")
        known = _Remembered(replace(verified, user=self._with_roles(verified.user)), now, {})
        # A session that ended while the directory was asked must not be remembered.
        if ends == self._ends:
            self._remembered[digest(secret)] = known
            while len(self._remembered) > MAX_CACHED_SESSIONS:
                self._remembered.popitem(last=False)
        return known

    def _with_roles(self, user: User) -> User:
        """Return *user* with the labels that the settings give, besides those of the provider."""
        given = dict.fromkeys(user.labels)
        if user.email in self._operators:
            given[OPERATOR] = None
        if self.second_factor.is_required_for(given):
            given[SECOND_FACTOR] = None
        return replace(user, labels=tuple(given))

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

    def _forget(self, ended: Callable[[Verified], bool]) -> None:
        self._ends += 1
        gone = [key for key, known in self._remembered.items() if ended(known.verified)]
        for key in gone:
            del self._remembered[key]


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
            "The page token is none that was given.",
            violations=[Violation("page_token", "use next_page_token of the previous page")],
        )
    return start
