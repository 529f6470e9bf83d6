"""``/account``: magic links, sessions and JWTs."""

import json
import secrets
from datetime import timedelta
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.appwrite import models, params
from sandbox.appwrite.access import JWT_SECONDS, Access, Caller
from sandbox.appwrite.errors import AppwriteError
from sandbox.appwrite.limits import Limits
from sandbox.appwrite.mailer import Mailer
from sandbox.appwrite.state import SESSION_LIFETIME, Project, Session

WORDS = ("amber", "boat", "cedar", "dune", "ember", "fjord", "gale", "harbour")


class Account:
    """Account routes for guests, API keys and users."""

    def __init__(
        self,
        project: Project,
        access: Access,
        limits: Limits,
        mailer: Mailer,
        *,
        platforms: tuple[str, ...] = (),
    ) -> None:
        self._project = project
        self._access = access
        self._limits = limits
        self._mailer = mailer
        self._platforms = platforms

    def routes(self) -> list[Route]:
        """Return the routes, aliases included."""
        return [
            Route("/v1/account", self.get),
            Route("/v1/account/name", self.set_name, methods=["PATCH"]),
            Route("/v1/account/prefs", self.get_prefs),
            Route("/v1/account/prefs", self.set_prefs, methods=["PATCH"]),
            Route("/v1/account/status", self.block, methods=["PATCH"]),
            Route("/v1/account/tokens/magic-url", self.create_token, methods=["POST"]),
            Route("/v1/account/sessions/magic-url", self.create_token, methods=["POST"]),
            Route("/v1/account/sessions/magic-url", self.create_session, methods=["PUT"]),
            Route("/v1/account/sessions/token", self.create_session, methods=["POST"]),
            Route("/v1/account/sessions", self.list_sessions),
            Route("/v1/account/sessions", self.delete_sessions, methods=["DELETE"]),
            Route("/v1/account/sessions/{session_id}", self.get_session),
            Route("/v1/account/sessions/{session_id}", self.extend_session, methods=["PATCH"]),
            Route("/v1/account/sessions/{session_id}", self.delete_session, methods=["DELETE"]),
            Route("/v1/account/identities", self.list_identities),
            Route("/v1/account/mfa", self.set_mfa, methods=["PATCH"]),
            Route("/v1/account/mfa/factors", self.list_factors),
            Route("/v1/account/jwts", self.create_jwt, methods=["POST"]),
            Route("/v1/account/jwt", self.create_jwt, methods=["POST"]),
        ]

    async def create_token(self, request: Request) -> Response:
        """Create a magic link and mail it; only an API key gets the secret in the response."""
        caller = self._access.caller(request)
        caller.need("sessions.write")
        if not self._project.switches.magic_url:
            raise AppwriteError("user_auth_method_unsupported")
        given = await params.body(request)
        wanted_id, email = params.user_id(given), params.email(given)
        url = params.link_url(given, self._platforms)
        headers = self._limit(caller, f"token {url} {email.lower()}", 60)
        self._limit(caller, f"token {url} {_ip(request)}", 60)
        if not self._project.switches.smtp:
            raise AppwriteError("general_smtp_disabled")
        user = self._project.by_email(email) or self._project.add_user(wanted_id, email)
        if not user.enabled:
            raise AppwriteError("user_blocked")
        token, secret = self._project.add_token(user)
        phrase = " ".join(secrets.choice(WORDS) for _ in range(2)) if given.get("phrase") else ""
        expire = models.moment(token.expires_at)
        link = _with_query(
            url or f"{request.url.scheme}://{request.url.netloc}/console/auth/magic-url",
            {"userId": user.id, "secret": secret, "expire": expire, "project": self._project.id},
        )
        self._mailer.send(user.email, link, phrase)
        shown = models.token(token, secret=secret if caller.is_key else "", phrase=phrase)
        return JSONResponse(shown, status_code=201, headers=headers)

    async def create_session(self, request: Request) -> Response:
        """Open a session from a magic link's user id and secret."""
        caller = self._access.caller(request)
        if caller.session is not None:
            raise AppwriteError("user_session_already_exists")
        caller.need("sessions.write")
        given = await params.body(request)
        user_id, secret = params.user_id(given), params.text(given, "secret")
        key = f"session {_ip(request)} {user_id}"
        headers = self._limit(caller, key, 10)
        user, kind = self._project.consume(user_id, secret)
        if not user.enabled:
            raise AppwriteError("user_blocked")
        agent = request.headers.get("x-forwarded-user-agent" if caller.is_key else "user-agent", "")
        session, shown = self._project.open_session(
            user, provider=kind, ip=_ip(request), user_agent=agent
        )
        self._limits.reset(key)
        answer = models.session(session, current=True, secret=shown if caller.is_key else "")
        response = JSONResponse(answer, status_code=201, headers=headers)
        self._set_cookies(request, response, session, shown)
        return response

    async def get(self, request: Request) -> Response:
        """Return the signed-in user."""
        user, _ = self._access.caller(request).signed_in()
        user.accessed_at = self._project.now()
        return JSONResponse(models.user(user))

    async def set_name(self, request: Request) -> Response:
        """Change the name of the signed-in user."""
        user, _ = self._access.caller(request).signed_in()
        user.name, user.updated_at = params.name(await params.body(request)), self._project.now()
        return JSONResponse(models.user(user))

    async def get_prefs(self, request: Request) -> Response:
        """Return the preferences of the signed-in user."""
        user, _ = self._access.caller(request).signed_in()
        return JSONResponse(user.prefs)

    async def set_prefs(self, request: Request) -> Response:
        """Replace the signed-in user's preferences and return the user."""
        user, _ = self._access.caller(request).signed_in()
        user.prefs, user.updated_at = params.prefs(await params.body(request)), self._project.now()
        return JSONResponse(models.user(user))

    async def block(self, request: Request) -> Response:
        """Block the signed-in user; they cannot undo this."""
        user, _ = self._access.caller(request).signed_in()
        user.enabled, user.updated_at = False, self._project.now()
        response = JSONResponse(models.user(user))
        self._delete_cookies(response)
        return response

    async def list_identities(self, request: Request) -> Response:
        """List the user's identities at other providers, of which there are none."""
        self._access.caller(request).signed_in()
        return JSONResponse({"total": 0, "identities": []})

    async def set_mfa(self, request: Request) -> Response:
        """Switch the second factor on or off and return the user."""
        user, _ = self._access.caller(request).signed_in()
        user.mfa = params.boolean(await params.body(request), "mfa")
        user.updated_at = self._project.now()
        return JSONResponse(models.user(user))

    async def list_factors(self, request: Request) -> Response:
        """List which second factors the user can use."""
        user, _ = self._access.caller(request).signed_in()
        return JSONResponse(models.factors(user))

    async def list_sessions(self, request: Request) -> Response:
        """List the user's sessions."""
        user, current = self._access.caller(request).signed_in()
        found = [
            models.session(session, current=session.id == current.id)
            for session in self._project.sessions_of(user.id)
        ]
        return JSONResponse({"total": len(found), "sessions": found})

    async def get_session(self, request: Request) -> Response:
        """Return one of the user's sessions."""
        session, current = self._named_session(request)
        return JSONResponse(models.session(session, current=session.id == current.id))

    async def extend_session(self, request: Request) -> Response:
        """Extend a session from the current time."""
        session, current = self._named_session(request)
        headers = self._limit(self._access.caller(request), f"extend {session.user_id}", 10)
        session.expires_at = self._project.now() + SESSION_LIFETIME
        answer = models.session(session, current=session.id == current.id)
        return JSONResponse(answer, headers=headers)

    async def delete_session(self, request: Request) -> Response:
        """Delete one of the user's sessions."""
        session, current = self._named_session(request)
        headers = self._limit(self._access.caller(request), f"delete {session.user_id}", 100)
        del self._project.sessions[session.id]
        response = _no_content(headers)
        if session.id == current.id:
            self._delete_cookies(response)
        return response

    async def delete_sessions(self, request: Request) -> Response:
        """Delete the user's sessions; with ``current: false`` all but the current one."""
        caller = self._access.caller(request)
        user, current = caller.signed_in()
        headers = self._limit(caller, f"delete all {user.id}", 100)
        keep_current = (await params.body(request)).get("current") is False
        for session in list(self._project.sessions_of(user.id)):
            if not (keep_current and session.id == current.id):
                del self._project.sessions[session.id]
        response = _no_content(headers)
        if not keep_current:
            self._delete_cookies(response)
        return response

    async def create_jwt(self, request: Request) -> Response:
        """Create a JWT from a session; a JWT cannot be created from a JWT."""
        caller = self._access.caller(request)
        user, session = caller.signed_in()
        if caller.by_jwt:
            raise AppwriteError("user_jwt_creation_denied")
        headers = self._limit(caller, f"jwt {user.id}", 120, timedelta(minutes=1))
        seconds = params.number(await params.body(request), "duration", JWT_SECONDS, 0, 3600)
        answer = {"jwt": self._access.make_jwt(session, seconds)}
        return JSONResponse(answer, status_code=201, headers=headers)

    def _named_session(self, request: Request) -> tuple[Session, Session]:
        """Return the session named in the path, and the caller's session."""
        user, current = self._access.caller(request).signed_in()
        name = request.path_params["session_id"]
        session = current if name == "current" else self._project.sessions.get(name)
        if session is None or session.user_id != user.id:
            raise AppwriteError("user_session_not_found")
        return session, current

    def _limit(
        self, caller: Caller, key: str, most: int, window: timedelta = timedelta(hours=1)
    ) -> dict[str, str]:
        return {} if caller.is_key else self._limits.hit(key, most=most, window=window)

    def _set_cookies(
        self, request: Request, response: Response, session: Session, secret: str
    ) -> None:
        name, secure = f"a_session_{self._project.id}", request.url.scheme == "https"
        # For browsers that block third-party cookies: no domain here belongs to the project.
        response.headers["X-Fallback-Cookies"] = json.dumps({name: secret})
        response.set_cookie(
            name,
            quote(secret, safe=""),
            expires=session.expires_at,
            path="/",
            secure=secure,
            httponly=True,
            samesite="none",
        )
        response.set_cookie(
            f"{name}_legacy",
            quote(secret, safe=""),
            expires=session.expires_at,
            path="/",
            secure=secure,
            httponly=True,
            samesite=None,
        )

    def _delete_cookies(self, response: Response) -> None:
        response.headers["X-Fallback-Cookies"] = "[]"
        for suffix in ("", "_legacy"):
            response.delete_cookie(f"a_session_{self._project.id}{suffix}", httponly=True)


def _no_content(headers: dict[str, str]) -> Response:
    # The official SDK reads the content type of every response, even an empty one.
    return Response(status_code=204, headers={**headers, "Content-Type": "text/plain"})


def _ip(request: Request) -> str:
    return request.client.host if request.client else ""


def _with_query(url: str, more: dict[str, str]) -> str:
    parts = urlsplit(url)
    query = urlencode({**dict(parse_qsl(parts.query, keep_blank_values=True)), **more})
    return urlunsplit(parts._replace(query=query))
