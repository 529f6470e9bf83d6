"""
``/users``: management of users, their tokens and sessions with an API key.

Left out, since nobody signs in with a password or a telephone here: users with hashed passwords,
targets of messages, and the recovery of accounts.
"""

import re
from collections.abc import Callable
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.appwrite import models, params, queries
from sandbox.appwrite.access import JWT_SECONDS, Access
from sandbox.appwrite.errors import AppwriteError, invalid
from sandbox.appwrite.models import Json
from sandbox.appwrite.state import Project, Session, TokenKind, User

TOKEN_LENGTH, TOKEN_SECONDS = 6, 900
_LABEL = re.compile(r"[a-zA-Z0-9]{1,36}")


class Users:
    """User management routes."""

    def __init__(self, project: Project, access: Access) -> None:
        self._project = project
        self._access = access

    def routes(self) -> list[Route]:
        """Return the routes."""
        one = "/v1/users/{user_id}"
        return [
            Route("/v1/users", self.list),
            Route("/v1/users", self.create, methods=["POST"]),
            Route("/v1/users/identities", self._empty("identities")),
            Route(one, self.get),
            Route(one, self.delete, methods=["DELETE"]),
            *(
                Route(f"{one}/{path}", self._change(change), methods=[method])
                for method, path, change in _CHANGES
            ),
            Route(f"{one}/email", self.set_email, methods=["PATCH"]),
            Route(f"{one}/phone", self.set_phone, methods=["PATCH"]),
            Route(f"{one}/password", self.set_password, methods=["PATCH"]),
            Route(f"{one}/mfa/factors", self.list_factors),
            Route(f"{one}/prefs", self.get_prefs),
            Route(f"{one}/prefs", self.set_prefs, methods=["PATCH"]),
            Route(f"{one}/targets", self.list_targets),
            Route(f"{one}/memberships", self._empty("memberships")),
            Route(f"{one}/logs", self._empty("logs")),
            Route(f"{one}/tokens", self.create_token, methods=["POST"]),
            Route(f"{one}/jwts", self.create_jwt, methods=["POST"]),
            Route(f"{one}/sessions", self.list_sessions),
            Route(f"{one}/sessions", self.create_session, methods=["POST"]),
            Route(f"{one}/sessions", self.delete_sessions, methods=["DELETE"]),
            Route(f"{one}/sessions/{{session_id}}", self.delete_session, methods=["DELETE"]),
        ]

    async def list(self, request: Request) -> Response:
        """List users in order of creation, or as the queries specify."""
        self._access.caller(request).need("users.read")
        given = request.query_params
        texts = [value for name, value in given.multi_items() if name.startswith("queries[")]
        total, page = queries.select(
            [*self._project.users.values()], texts, search=given.get("search", "")
        )
        counted = given.get("total", "true") not in {"false", "0"}
        shown = [models.full_user(user) for user in page]
        return JSONResponse({"total": total if counted else 0, "users": shown})

    async def create(self, request: Request) -> Response:
        """Create a user with the given id."""
        self._access.caller(request).need("users.write")
        given = await params.body(request)
        user_id = params.user_id(given)
        email = params.email(given) if given.get("email") else ""
        phone = params.phone(given) if given.get("phone") else ""
        name = params.name(given)
        password = bool(given.get("password") and params.password(given))
        user = self._project.add_user(user_id, email, name=name, phone=phone)
        if password:
            user.password_at = self._project.now()
        return JSONResponse(models.full_user(user), status_code=201)

    async def get(self, request: Request) -> Response:
        """Return a user."""
        return JSONResponse(models.full_user(self._user(request, "users.read")))

    async def delete(self, request: Request) -> Response:
        """Delete a user with their sessions and tokens."""
        self._project.delete_user(self._user(request, "users.write"))
        return _no_content()

    def _change(self, change: Callable[[User, Json], None]) -> Callable[[Request], object]:
        async def answer(request: Request) -> Response:
            user = self._user(request, "users.write")
            change(user, await params.body(request))
            user.updated_at = self._project.now()
            return JSONResponse(models.full_user(user))

        return answer

    async def set_email(self, request: Request) -> Response:
        """Change a user's email address, which then counts as unverified."""
        user = self._user(request, "users.write")
        email = params.email(await params.body(request)).lower()
        known = self._project.by_email(email)
        if known is not None and known is not user:
            raise AppwriteError("user_target_already_exists")
        user.email, user.verified, user.updated_at = email, False, self._project.now()
        return JSONResponse(models.full_user(user))

    async def set_phone(self, request: Request) -> Response:
        """Change a user's telephone number, which then counts as unverified."""
        user = self._user(request, "users.write")
        given = await params.body(request)
        phone = params.phone(given, "number") if given.get("number") != "" else ""
        if phone and any(
            one.phone == phone and one is not user for one in self._project.users.values()
        ):
            raise AppwriteError("user_target_already_exists")
        user.phone, user.phone_verified, user.updated_at = phone, False, self._project.now()
        return JSONResponse(models.full_user(user))

    async def set_password(self, request: Request) -> Response:
        """Accept a password: nobody can sign in with it here, but its date is kept."""
        user = self._user(request, "users.write")
        params.password(await params.body(request))
        user.password_at = user.updated_at = self._project.now()
        return JSONResponse(models.full_user(user))

    async def list_factors(self, request: Request) -> Response:
        """List which second factors a user can use."""
        return JSONResponse(models.factors(self._user(request, "users.read")))

    async def get_prefs(self, request: Request) -> Response:
        """Return a user's preferences."""
        return JSONResponse(self._user(request, "users.read").prefs)

    async def set_prefs(self, request: Request) -> Response:
        """Replace a user's preferences."""
        user = self._user(request, "users.write")
        user.prefs = params.prefs(await params.body(request))
        user.updated_at = self._project.now()
        return JSONResponse(user.prefs)

    async def list_targets(self, request: Request) -> Response:
        """List a user's messaging targets."""
        targets = models.targets(self._user(request, "users.read"))
        return JSONResponse({"total": len(targets), "targets": targets})

    def _empty(self, name: str) -> Callable[[Request], object]:
        async def answer(request: Request) -> Response:
            self._access.caller(request).need("users.read")
            if "user_id" in request.path_params:
                self._project.user(request.path_params["user_id"])
            return JSONResponse({"total": 0, name: []})

        return answer

    async def create_token(self, request: Request) -> Response:
        """Create a token that opens one session; the key's owner delivers its secret."""
        user = self._user(request, "users.write")
        given = await params.body(request)
        length = params.number(given, "length", TOKEN_LENGTH, 4, 128)
        seconds = params.number(given, "expire", TOKEN_SECONDS, 60, 31_536_000)
        token, secret = self._project.add_token(
            user, kind=TokenKind.GENERIC, length=length, lifetime=timedelta(seconds=seconds)
        )
        return JSONResponse(models.token(token, secret=secret, phrase=""), status_code=201)

    async def create_jwt(self, request: Request) -> Response:
        """Create a JWT for one of the user's sessions, by default the newest."""
        user = self._user(request, "users.write")
        given = await params.body(request)
        wanted = given.get("sessionId") or "recent"
        seconds = params.number(given, "duration", JWT_SECONDS, 0, 3600)
        found = sorted(self._project.sessions_of(user.id), key=lambda one: one.created_at)
        chosen = found[-1:] if wanted == "recent" else [one for one in found if one.id == wanted]
        if not chosen:
            raise AppwriteError("user_session_not_found")
        return JSONResponse({"jwt": self._access.make_jwt(chosen[0], seconds)}, status_code=201)

    async def list_sessions(self, request: Request) -> Response:
        """List a user's sessions."""
        user = self._user(request, "users.read")
        found = [
            models.session(session, current=False) for session in self._project.sessions_of(user.id)
        ]
        return JSONResponse({"total": len(found), "sessions": found})

    async def create_session(self, request: Request) -> Response:
        """Open a session for a user; the key's owner gets its secret."""
        user = self._user(request, "users.write")
        if not user.enabled:
            raise AppwriteError("user_blocked")
        session, secret = self._project.open_session(
            user,
            provider="server",
            ip=request.client.host if request.client else "",
            user_agent=request.headers.get("x-forwarded-user-agent", ""),
        )
        answer = models.session(session, current=False, secret=secret)
        return JSONResponse(answer, status_code=201)

    async def delete_sessions(self, request: Request) -> Response:
        """Delete all sessions of a user."""
        user = self._user(request, "users.write")
        for session in [*self._project.sessions_of(user.id)]:
            del self._project.sessions[session.id]
        return _no_content()

    async def delete_session(self, request: Request) -> Response:
        """Delete one session of a user."""
        user = self._user(request, "users.write")
        session: Session | None = self._project.sessions.get(request.path_params["session_id"])
        if session is None or session.user_id != user.id:
            raise AppwriteError("user_session_not_found")
        del self._project.sessions[session.id]
        return _no_content()

    def _user(self, request: Request, scope: str) -> User:
        self._access.caller(request).need(scope)
        return self._project.user(request.path_params["user_id"])


def _set_labels(user: User, given: Json) -> None:
    labels = given.get("labels")
    if not isinstance(labels, list) or not all(
        isinstance(label, str) and _LABEL.fullmatch(label) for label in labels
    ):
        raise invalid("labels", "Value must be an array of alphanumeric strings")
    user.labels = list(dict.fromkeys(labels))


def _set_status(user: User, given: Json) -> None:
    user.enabled = params.boolean(given, "status")


def _set_name(user: User, given: Json) -> None:
    user.name = params.name(given)


def _set_phone_verified(user: User, given: Json) -> None:
    user.phone_verified = params.boolean(given, "phoneVerification")


def _set_mfa(user: User, given: Json) -> None:
    user.mfa = params.boolean(given, "mfa")


def _set_verified(user: User, given: Json) -> None:
    user.verified = params.boolean(given, "emailVerification")


_CHANGES: tuple[tuple[str, str, Callable[[User, Json], None]], ...] = (
    ("PUT", "labels", _set_labels),
    ("PATCH", "status", _set_status),
    ("PATCH", "name", _set_name),
    ("PATCH", "verification", _set_verified),
    ("PATCH", "verification/phone", _set_phone_verified),
    ("PATCH", "mfa", _set_mfa),
)


def _no_content() -> Response:
    # The official SDK reads the content type of every response, even an empty one.
    return Response(status_code=204, headers={"Content-Type": "text/plain"})
