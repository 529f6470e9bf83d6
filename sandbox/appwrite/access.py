"""Authentication of callers: an API key with scopes, a user with a session or JWT, or a guest."""

import json
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import unquote

import jwt
from starlette.requests import Request

from sandbox.appwrite.errors import AppwriteError
from sandbox.appwrite.state import Project, Session, User

GUEST_SCOPES = frozenset({"sessions.write"})
USER_SCOPES = frozenset({"account"})
JWT_SECONDS = 900


@dataclass(frozen=True)
class Caller:
    """The caller, with their scopes and session."""

    scopes: frozenset[str]
    role: str
    is_key: bool = False
    user: User | None = None
    session: Session | None = None
    by_jwt: bool = False

    def need(self, scope: str) -> None:
        """Raise an error if the caller lacks *scope*."""
        if scope not in self.scopes:
            raise AppwriteError(
                "general_unauthorized_scope",
                f'{self.role} missing scopes (["{scope}"])',
            )

    def signed_in(self) -> tuple[User, Session]:
        """Return the user and session; raise an error if the caller is not a user."""
        self.need("account")
        if self.user is None or self.session is None:
            raise AppwriteError("general_unauthorized_scope")
        return self.user, self.session


class Access:
    """Authenticates callers by API key, session or JWT."""

    def __init__(self, project: Project, key: str, scopes: Collection[str]) -> None:
        self._project = project
        self._key = key
        self._scopes = frozenset(scopes)
        self._jwt_key = secrets.token_hex(32)

    def caller(self, request: Request) -> Caller:
        """Return the caller of *request*.

        A caller whose session or key is missing, expired or unknown is a guest.
        """
        if request.headers.get("x-appwrite-project") != self._project.id:
            raise AppwriteError("project_not_found")
        key = request.headers.get("x-appwrite-key", "")
        if key and secrets.compare_digest(key.encode(), self._key.encode()):
            host = request.url.hostname
            role = f"app.{self._project.id}@service.{host} (role: applications)"
            return Caller(self._scopes, role, is_key=True)
        token = request.headers.get("x-appwrite-jwt", "")
        secret = self._session_secret(request)
        if token:
            if secret:
                raise AppwriteError("user_jwt_and_cookie_set")
            return self._of_session(self._session_of_jwt(token), by_jwt=True)
        return self._of_session(self._project.session_of(secret) if secret else None)

    def make_jwt(self, session: Session, seconds: int) -> str:
        """Return a JWT that expires with *session*, and after at most *seconds*."""
        claims = {
            "userId": session.user_id,
            "sessionId": session.id,
            "exp": int(time.time()) + seconds,
        }
        return jwt.encode(claims, self._jwt_key, algorithm="HS256")

    def _session_of_jwt(self, token: str) -> Session:
        try:
            claims = jwt.decode(token, self._jwt_key, algorithms=["HS256"])
        except jwt.InvalidTokenError as exc:
            raise AppwriteError("user_jwt_invalid") from exc
        session = self._project.sessions.get(claims["sessionId"])
        if session is None:
            raise AppwriteError("user_jwt_invalid")
        return session

    def _of_session(self, session: Session | None, *, by_jwt: bool = False) -> Caller:
        if session is None:
            return Caller(GUEST_SCOPES, "User (role: guests)")
        user = self._project.users[session.user_id]
        if not user.enabled:
            raise AppwriteError("user_blocked")
        return Caller(USER_SCOPES, "User (role: users)", user=user, session=session, by_jwt=by_jwt)

    def _session_secret(self, request: Request) -> str:
        name = f"a_session_{self._project.id}"
        for candidate in (
            unquote(request.cookies.get(name, "")),
            unquote(request.cookies.get(f"{name}_legacy", "")),
            request.headers.get("x-appwrite-session"),
        ):
            if candidate:
                return candidate
        try:
            fallback = json.loads(request.headers.get("x-fallback-cookies", "{}"))
        except (ValueError, RecursionError):
            return ""
        found = fallback.get(name, "") if isinstance(fallback, dict) else ""
        return found if isinstance(found, str) else ""
