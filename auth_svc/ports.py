"""Interfaces that the rules of sign-in and sessions depend on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

Clock = Callable[[], datetime]
"""Returns the current time, timezone-aware."""

APPLICANT = "applicant"
OPERATOR = "operator"
SECOND_FACTOR = "secondfactor"
"""The label of a user who opted in to a second factor. Appwrite's labels are alphanumeric."""

LONGEST_SESSION = timedelta(days=30)


@dataclass(frozen=True)
class User:
    """A user; the address is in lower case. A ``blocked`` user cannot have sessions."""

    id: str
    email: str = field(repr=False)
    labels: tuple[str, ...] = (APPLICANT,)
    blocked: bool = False


def with_label(labels: Sequence[str], label: str, *, on: bool) -> tuple[str, ...]:
    """Return *labels* with *label* once at the end, or without it."""
    others = tuple(known for known in labels if known != label)
    return (*others, label) if on else others


@dataclass(frozen=True)
class Session:
    """An open session; ``expires_at`` is its absolute expiry.

    A session is never renewed, so ``created_at`` is the time of authentication. ``by_passkey``
    means that it was opened with both factors, not only by a mailed link.
    """

    id: str
    created_at: datetime
    expires_at: datetime
    device: str = ""
    by_passkey: bool = False


@dataclass(frozen=True)
class SessionLife:
    """Session lifetimes: ``absolute`` since opening, ``idle`` since the last use."""

    absolute: timedelta = timedelta(days=7)
    idle: timedelta = timedelta(hours=12)

    @property
    def noted_every(self) -> timedelta:
        """The precision of the last use; recording every use would write on every request."""
        return self.idle / 50


@dataclass(frozen=True)
class OpenedSession:
    """A new session, with the only copy of its secret."""

    secret: str = field(repr=False)
    session: Session


@dataclass(frozen=True)
class Verified:
    """The user and session behind a session secret."""

    user: User
    session: Session


@dataclass(frozen=True)
class Invitation:
    """What a user needs to sign in.

    ``secret`` is hexadecimal, 256 bits or more. ``mailed`` means that the directory sends the
    link itself.
    """

    user: User
    secret: str = field(repr=False)
    mailed: bool = False


class Directory(Protocol):
    """An identity provider: users and their sessions.

    Every method raises UnavailableError if the provider is unavailable.
    """

    async def invite(self, email: str, *, new_id: str, language: str) -> Invitation:
        """Find or create the user of *email*; a new one gets *new_id*, or another id if taken."""
        ...

    async def open_session(self, user_id: str, secret: str, *, user_agent: str) -> OpenedSession:
        """Open a session for the user who was invited with *secret*.

        Raises:
            InvalidCredentialsError: The provider does not accept the secret.
        """
        ...

    async def open_session_of(self, user_id: str, *, user_agent: str) -> OpenedSession:
        """Open a session for a user who presented a passkey.

        Raises:
            InvalidCredentialsError: The user is blocked or does not exist.
        """
        ...

    async def find_session(self, secret: str) -> Verified | None:
        """Return the user of *secret*; None if its session is unknown or has ended."""
        ...

    async def sessions(self, user_id: str) -> list[Session]:
        """Return the user's open sessions, newest first."""
        ...

    async def end_session(self, user_id: str, session_id: str) -> bool:
        """End one session of the user; return False if the user has no such session."""
        ...

    async def end_sessions(self, user_id: str) -> list[str]:
        """End all sessions of the user and return their ids."""
        ...

    async def set_label(self, user_id: str, label: str, *, on: bool) -> None:
        """Add *label* to the user, or remove it; idempotent."""
        ...


@dataclass(frozen=True)
class Link:
    """A magic link that was sent and can be used once.

    ``handle`` is the ``userId`` in the link; ``digest`` is that of its secret.
    """

    handle: str
    user_id: str
    digest: bytes = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True)
class Use:
    """What Auth records about the use of a session, in addition to its provider's data."""

    by_passkey: bool


class Links(Protocol):
    """Stores pending links, one per handle."""

    async def put(self, link: Link) -> None:
        """Store *link*, replacing an earlier one with the same handle."""
        ...

    async def consume(self, handle: str, digest: bytes, *, now: datetime, tries: int) -> str | None:
        """Consume a link atomically: one of several callers gets the user id, the others None.

        A digest that belongs to no link counts as an attempt; after *tries* of them, the link is
        invalid.
        """
        ...

    async def restore(self, handle: str, digest: bytes) -> None:
        """Make a consumed link usable again, because the provider failed."""
        ...


@dataclass(frozen=True)
class Allowance:
    """A burst of ``hits``, refilled evenly over ``window`` and counted under ``key``."""

    key: str
    hits: int
    window: timedelta


@dataclass(frozen=True)
class Exceeded:
    """The exhausted allowance, and when the next hit is possible."""

    allowance: Allowance
    retry_after: timedelta


class Counters(Protocol):
    """Counts hits on rate limits over all replicas."""

    async def count(self, allowances: Sequence[Allowance], *, now: datetime) -> Exceeded | None:
        """Count a hit on each allowance, or on none if one is exhausted."""
        ...


@dataclass(frozen=True)
class Revocation:
    """A session that was revoked, or a user whose labels or second factor changed."""

    session_id: str
    user_id: str
    at: datetime


class RevocationStore(Protocol):
    """Revocations of all replicas, with increasing positions."""

    async def add(self, added: Sequence[Revocation]) -> None:
        """Store *added*."""
        ...

    async def after(self, position: int, *, since: datetime) -> dict[int, Revocation]:
        """Return the revocations after *position* that were made after *since*, by position."""
        ...


class Contacts(Protocol):
    """Looks up known contacts in REDCap, through Survey."""

    async def find(self, email: str) -> str:
        """Return the user id of *email*; empty if unknown.

        Raises:
            UnavailableError: The look-up failed.
        """
        ...


class Console(Protocol):
    """The mesh's console for operators."""

    async def link_for(self, operator: str) -> str:
        """Return a one-time link to the console for the operator with this user id.

        Raises:
            NotFoundError: This mesh has no console.
            UnavailableError: The console is unavailable.
        """
        ...


@dataclass(frozen=True)
class Mail:
    """A mail to one recipient; it is discarded after ``useful_until``."""

    to: str = field(repr=False)
    subject: str
    text: str = field(repr=False)
    html: str = field(repr=False)
    useful_until: datetime


class Mailer(Protocol):
    """Sends mail asynchronously."""

    def enqueue(self, mail: Mail) -> None:
        """Accept *mail* for sending; return before it is sent.

        Raises:
            UnavailableError: Too many mails are waiting.
        """
        ...
