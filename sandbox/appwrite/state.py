"""In-memory state of the project: users, tokens, sessions, clock and injected faults."""

import base64
import hashlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sandbox.appwrite.errors import AppwriteError

TOKEN_LIFETIME = timedelta(hours=1)
SESSION_LIFETIME = timedelta(days=365)
MOST_SESSIONS = 10
MOST_USERS = 10_000


@dataclass
class User:
    """An account."""

    id: str
    email: str
    created_at: datetime
    labels: list[str] = field(default_factory=list)
    verified: bool = False
    enabled: bool = True
    name: str = ""
    phone: str = ""
    phone_verified: bool = False
    mfa: bool = False
    password_at: datetime | None = None
    prefs: dict[str, object] = field(default_factory=dict)
    updated_at: datetime | None = None
    accessed_at: datetime | None = None


class TokenKind(StrEnum):
    """How a token was issued; also the ``provider`` of the session it opens."""

    MAGIC_URL = "magic-url"
    GENERIC = "token"


@dataclass(frozen=True)
class Token:
    """The stored half of a magic link."""

    id: str
    user_id: str
    digest: bytes
    created_at: datetime
    expires_at: datetime
    kind: TokenKind


@dataclass
class Session:
    """An open session; the secret is stored as its digest."""

    id: str
    user_id: str
    digest: bytes
    created_at: datetime
    expires_at: datetime
    ip: str
    user_agent: str
    provider: str


@dataclass
class Switches:
    """Faults that a test injects; ``mode`` is one of none, drop, html, 500, 503."""

    smtp: bool = True
    magic_url: bool = True
    latency_ms: int = 0
    mode: str = "none"


class Project:
    """One Appwrite project, in memory."""

    def __init__(self, project_id: str) -> None:
        self.id = project_id
        self.users: dict[str, User] = {}
        self.sessions: dict[str, Session] = {}
        self.switches = Switches()
        self.ahead = timedelta(0)
        self._tokens: list[Token] = []

    def now(self) -> datetime:
        """Return the project's current time, which tests can advance."""
        return datetime.now(UTC) + self.ahead

    def by_email(self, email: str) -> User | None:
        """Return the user with *email*, compared case-insensitively."""
        wanted = email.lower()
        return next((user for user in self.users.values() if user.email == wanted), None)

    def user(self, user_id: str) -> User:
        """Return a user; raise ``user_not_found`` if unknown."""
        found = self.users.get(user_id)
        if found is None:
            raise AppwriteError("user_not_found")
        return found

    def add_user(self, user_id: str, email: str, *, name: str = "", phone: str = "") -> User:
        """Create a user; with ``unique()`` the server chooses the id."""
        chosen = secrets.token_hex(10) if user_id == "unique()" else user_id
        phones = (user.phone for user in self.users.values())
        if chosen in self.users or (email and self.by_email(email)) or (phone and phone in phones):
            raise AppwriteError("user_already_exists")
        if len(self.users) >= MOST_USERS:
            raise AppwriteError("user_count_exceeded")
        user = self.users[chosen] = User(chosen, email.lower(), self.now(), name=name, phone=phone)
        return user

    def delete_user(self, user: User) -> None:
        """Delete a user with their sessions and tokens."""
        for session in [*self.sessions_of(user.id)]:
            del self.sessions[session.id]
        self._tokens = [token for token in self._tokens if token.user_id != user.id]
        del self.users[user.id]

    def add_token(
        self,
        user: User,
        *,
        kind: TokenKind = TokenKind.MAGIC_URL,
        length: int = 64,
        lifetime: timedelta = TOKEN_LIFETIME,
    ) -> tuple[Token, str]:
        """Create a token and its secret of *length* characters; earlier ones stay valid."""
        secret, now = secrets.token_hex(length)[:length], self.now()
        token_id = secrets.token_hex(10)
        token = Token(token_id, user.id, digest(secret), now, now + lifetime, kind)
        self._tokens = [old for old in self._tokens if old.expires_at > now]
        self._tokens.append(token)
        return token, secret

    def consume(self, user_id: str, secret: str) -> tuple[User, TokenKind]:
        """Consume a token and return its user and kind; every failure raises the same error."""
        shown, now = digest(secret), self.now()
        for token in self._tokens:
            if (token.user_id, token.digest) == (user_id, shown) and token.expires_at > now:
                self._tokens.remove(token)
                user = self.users[user_id]
                if token.kind is TokenKind.MAGIC_URL:
                    user.verified = True
                return user, token.kind
        raise AppwriteError("user_invalid_token")

    def open_session(
        self, user: User, *, provider: str, ip: str, user_agent: str
    ) -> tuple[Session, str]:
        """Open a session; return it with its client-side secret."""
        raw, now = secrets.token_hex(128), self.now()
        session = Session(
            secrets.token_hex(10),
            user.id,
            digest(raw),
            now,
            now + SESSION_LIFETIME,
            ip,
            user_agent,
            provider,
        )
        open_now = sorted(self.sessions_of(user.id), key=lambda other: other.created_at)
        for oldest in open_now[: max(0, len(open_now) + 1 - MOST_SESSIONS)]:
            del self.sessions[oldest.id]
        self.sessions[session.id] = session
        user.accessed_at = now
        text = json.dumps({"id": user.id, "secret": raw}, separators=(",", ":"))
        return session, base64.b64encode(text.encode()).decode()

    def session_of(self, secret: str) -> Session | None:
        """Return the open session for the client-side *secret*."""
        try:
            shown = json.loads(base64.b64decode(secret, validate=True))
            user_id, raw = shown["id"], shown["secret"]
        except (ValueError, TypeError, KeyError):
            return None
        if not isinstance(raw, str):
            return None
        wanted = digest(raw)
        for session in self.sessions_of(user_id):
            if secrets.compare_digest(session.digest, wanted):
                return session
        return None

    def sessions_of(self, user_id: str) -> Iterator[Session]:
        """Yield the open sessions of a user."""
        now = self.now()
        for session in list(self.sessions.values()):
            if session.expires_at <= now:
                del self.sessions[session.id]
            elif session.user_id == user_id:
                yield session


def digest(secret: str) -> bytes:
    """Return the stored digest of a secret."""
    return hashlib.sha256(secret.encode()).digest()
