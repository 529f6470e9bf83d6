"""What the rules of sign-in and sessions need from the harness outside."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

Clock = Callable[[], datetime]
"""Returns the present time, aware of its time zone."""

APPLICANT = "applicant"
OPERATOR = "operator"
SECOND_FACTOR = "secondfactor"
"""The label of a user who wants to be asked for a passkey. Appwrite's labels are alphanumeric."""

LONGEST_SESSION = timedelta(days=30)


@dataclass(frozen=True)
class User:
    """A person; the address is lower-case. Who is ``blocked`` has no session and gets none."""

    id: str
    email: str = field(repr=False)
    labels: tuple[str, ...] = (APPLICANT,)
    blocked: bool = False


def with_label(labels: Sequence[str], label: str, *, on: bool) -> tuple[str, ...]:
    """Return *labels* with *label* once, at their end, or without it."""
    others = tuple(known for known in labels if known != label)
    return (*others, label) if on else others


@dataclass(frozen=True)
class Session:
    """An open session; ``expires_at`` is its absolute end.

    A session is never renewed, so that ``created_at`` is when the person proved who they are.
    ``by_passkey`` says that they did so with both factors, not only by a mailed link.
    """

    id: str
    created_at: datetime
    expires_at: datetime
    device: str = ""
    by_passkey: bool = False


@dataclass(frozen=True)
class SessionLife:
    """When sessions end: ``absolute`` after they were opened, ``idle`` after they were used."""

    absolute: timedelta = timedelta(days=7)
    idle: timedelta = timedelta(hours=12)

    @property
    def noted_every(self) -> timedelta:
        """How exactly the last use is known; noting each one would write on every request."""
        return self.idle / 50


@dataclass(frozen=True)
class OpenedSession:
    """A session just opened, with the only copy of its secret."""

    secret: str = field(repr=False)
    session: Session


@dataclass(frozen=True)
class Verified:
    """Whom a session secret belongs to."""

    user: User
    session: Session


@dataclass(frozen=True)
class Invitation:
    """What a person needs to sign in.

    ``secret`` is hexadecimal, 256 bits or more. ``mailed`` says that the directory sends the
    link by itself.
    """

    user: User
    secret: str = field(repr=False)
    mailed: bool = False


class Directory(Protocol):
    """An identity provider: users and their sessions.

    Every method raises UnavailableError while the provider cannot be asked.
    """

    async def invite(self, email: str, *, new_id: str, language: str) -> Invitation:
        """Find the user of *email*, or make one called *new_id*, or otherwise if that is taken."""
        ...

    async def open_session(self, user_id: str, secret: str, *, user_agent: str) -> OpenedSession:
        """Open a session for the user who was invited with *secret*.

        Raises:
            InvalidCredentialsError: The provider does not accept the secret.
        """
        ...

    async def open_session_of(self, user_id: str, *, user_agent: str) -> OpenedSession:
        """Open a session for a user who showed a passkey.

        Raises:
            InvalidCredentialsError: The user is blocked, or gone.
        """
        ...

    async def find_session(self, secret: str) -> Verified | None:
        """Return whom *secret* belongs to; None when its session is unknown or has ended."""
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
    """A magic link that was mailed and may be used once.

    ``handle`` is what stands in the link as ``userId``; ``digest`` is of its secret.
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
    """Where pending links are kept: one per handle."""

    async def put(self, link: Link) -> None:
        """Keep *link*; the one before, of the same handle, no longer works."""
        ...

    async def consume(self, handle: str, digest: bytes, *, now: datetime, tries: int) -> str | None:
        """Use a link up, atomically: of parallel callers one gets the user's id, the others None.

        A wrong digest counts as a try; after *tries* of them the link no longer works.
        """
        ...

    async def restore(self, handle: str, digest: bytes) -> None:
        """Make a link that was taken usable again, as the provider could not be asked."""
        ...


@dataclass(frozen=True)
class Allowance:
    """A burst of ``hits``, refilled evenly over ``window`` and counted under ``key``."""

    key: str
    hits: int
    window: timedelta


@dataclass(frozen=True)
class Exceeded:
    """The allowance that is used up, and when the next hit is possible."""

    allowance: Allowance
    retry_after: timedelta


class Counters(Protocol):
    """Counts what is limited, over all replicas."""

    async def count(self, allowances: Sequence[Allowance], *, now: datetime) -> Exceeded | None:
        """Count one more under each allowance; or, if one is used up, under none."""
        ...


@dataclass(frozen=True)
class Revocation:
    """A session that ended before its time, or a user whose labels or second factor changed."""

    session_id: str
    user_id: str
    at: datetime


class RevocationStore(Protocol):
    """Revocations of all replicas, each with a position that grows."""

    async def add(self, added: Sequence[Revocation]) -> None:
        """Store *added*."""
        ...

    async def after(self, position: int, *, since: datetime) -> dict[int, Revocation]:
        """Return the revocations behind *position* and made after *since*, by position."""
        ...


class Contacts(Protocol):
    """Knows people from before: REDCap, asked through Survey."""

    async def find(self, email: str) -> str:
        """Return the user id under which *email* is known; empty when it is not.

        Raises:
            UnavailableError: Nobody can say at the moment.
        """
        ...


class Console(Protocol):
    """The mesh's console, where operators look and steer."""

    async def link_for(self, operator: str) -> str:
        """Return a link that opens the console once for the operator with this user id.

        Raises:
            NotFoundError: This mesh has no console.
            UnavailableError: The console is unavailable.
        """
        ...


@dataclass(frozen=True)
class Mail:
    """A mail to one person; there is no point in sending it after ``useful_until``."""

    to: str = field(repr=False)
    subject: str
    text: str = field(repr=False)
    html: str = field(repr=False)
    useful_until: datetime


class Mailer(Protocol):
    """Sends mail later."""

    def enqueue(self, mail: Mail) -> None:
        """Accept *mail* for sending; return before it is sent.

        Raises:
            UnavailableError: Too many mails wait already.
        """
        ...
