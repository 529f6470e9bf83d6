"""Appwrite as identity provider: the port ``Directory`` over its REST API."""

import asyncio
import contextlib
import json
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import structlog

from auth_svc.errors import InvalidCredentialsError, InvalidEmailError
from auth_svc.ports import (
    Clock,
    Invitation,
    OpenedSession,
    Session,
    SessionLife,
    Use,
    User,
    Verified,
    with_label,
)
from auth_svc.providers.appwrite_client import AppwriteClient, AppwriteError
from auth_svc.providers.appwrite_responses import (
    SessionModel,
    Token,
    UserModel,
    Users,
    each,
    read,
)
from mesh.chassis.errors import UnavailableError, UpstreamError
from mesh.chassis.server import StartError
from mesh.chassis.telemetry import names

log = structlog.get_logger("appwrite")

PAGE = 100
_COOKIE = re.compile(r"[A-Za-z0-9_-]+")
_TO_COOKIE, _TO_BASE64 = str.maketrans("+/", "-_"), str.maketrans("-_", "+/")
NOBODY = "nobody-amarre-start"
"""A user id that does not exist, for checks without side effects."""


class SessionUses(Protocol):
    """Records how sessions were opened and when they were last used, which Appwrite does not."""

    async def record_start(self, session_id: str, *, by_passkey: bool, now: datetime) -> None:
        """Record that a session was opened, and how."""
        ...

    async def record_use(self, session_id: str, *, now: datetime) -> Use | None:
        """Record a use of a session; return None if it was idle for too long."""
        ...


class AppwriteDirectory:
    """Users and sessions in Appwrite.

    Appwrite sends the links itself. Its links are valid for an hour and its sessions for a year;
    the rules and *life* enforce our shorter limits.
    """

    def __init__(
        self,
        client: AppwriteClient,
        uses: SessionUses,
        clock: Clock,
        *,
        life: SessionLife,
        link_url: str,
    ) -> None:
        self._client = client
        self._uses = uses
        self._clock = clock
        self._life = life
        self._link_url = link_url

    async def check(self) -> None:
        """Check project and key with three calls without side effects.

        If Appwrite is unavailable, Auth starts anyway.

        Raises:
            StartError: The project is unknown or the key lacks a scope; both are named.
        """
        probes = (
            ("users.read", "GET", "/users/" + NOBODY, None),
            ("users.write", "DELETE", f"/users/{NOBODY}/sessions", None),
            (
                "sessions.write",
                "POST",
                "/account/sessions/token",
                {"userId": NOBODY, "secret": "0" * 64},
            ),
        )
        missing = []
        for scope, method, path, body in probes:
            try:
                await self._client.as_service(method, path, body)
            except AppwriteError as error:
                if error.kind == "project_not_found":
                    raise StartError(
                        "AMARRE_AUTH_APPWRITE_PROJECT does not name a project of this Appwrite."
                    ) from error
                if error.kind == "general_unauthorized_scope":
                    missing.append(scope)
            except UnavailableError:
                log.warning("appwrite not checked", reason="unavailable")
                return
        if missing:
            raise StartError(
                f"The key in AMARRE_AUTH_APPWRITE_KEY_FILE lacks {', '.join(missing)}:"
                " give it these scopes in Appwrite's console, or use another key."
            )

    async def is_reachable(self) -> bool:
        """Return whether Appwrite responds; an error response counts."""
        with contextlib.suppress(AppwriteError):
            await self._client.as_service("GET", f"/users/{NOBODY}")
        return True

    async def invite(self, email: str, *, new_id: str, language: str) -> Invitation:
        """Let Appwrite find or create the user and send the link."""
        try:
            token = await self._ask_for_link(email, new_id, language)
        except AppwriteError as error:
            if error.kind == "user_already_exists":
                # REDCap knows this address under the id of another user; see EmbeddedDirectory.
                log.warning("user id is taken", action="generated a new id")
                token = await self._ask_for_link(email, secrets.token_hex(10), language)
            elif error.kind == "user_blocked":
                # The response does not reveal that the address is known and blocked.
                log.warning("blocked user asked for a link", kind=names.KIND_SECURITY)
                return Invitation(User(new_id, email), secrets.token_hex(32), mailed=True)
            elif error.kind == "general_argument_invalid":
                raise InvalidEmailError("Appwrite does not accept the e-mail address.") from error
            else:
                raise _unexpected(error) from error
        link = read(Token, token)
        return Invitation(User(link.user_id, email), link.secret, mailed=True)

    async def open_session(self, user_id: str, secret: str, *, user_agent: str) -> OpenedSession:
        """Let Appwrite consume the link and open a session."""
        try:
            session = await self._client.as_service(
                "POST",
                "/account/sessions/token",
                {"userId": user_id, "secret": secret},
                x_forwarded_user_agent=_printable(user_agent),
            )
        except AppwriteError as error:
            if error.kind in {"user_invalid_token", "user_blocked"}:
                raise InvalidCredentialsError from error
            raise _unexpected(error) from error
        return await self._opened(session, by_passkey=False)

    async def open_session_of(self, user_id: str, *, user_agent: str) -> OpenedSession:
        """Let Appwrite open a session after this service has verified a passkey."""
        try:
            session = await self._client.as_service(
                "POST",
                f"/users/{quote(user_id, safe='')}/sessions",
                x_forwarded_user_agent=_printable(user_agent),
            )
        except AppwriteError as error:
            if error.kind in {"user_not_found", "user_blocked"}:
                raise InvalidCredentialsError from error
            raise _unexpected(error) from error
        return await self._opened(session, by_passkey=True)

    async def _opened(self, session: dict[str, Any], *, by_passkey: bool) -> OpenedSession:
        shown = read(SessionModel, session)
        if not shown.secret:
            raise UpstreamError("Appwrite opened a session but did not return its secret.")
        opened = replace(shown.session(self._life.absolute), by_passkey=by_passkey)
        await self._uses.record_start(opened.id, by_passkey=by_passkey, now=self._clock())
        return OpenedSession(_for_cookie(shown.secret), opened)

    async def find_session(self, secret: str) -> Verified | None:
        """Return the user of *secret*; only status 401 means that there is none."""
        if not _COOKIE.fullmatch(secret):
            return None
        shown = _from_cookie(secret)
        try:
            account, current = await asyncio.gather(
                self._client.as_user("/account", shown),
                self._client.as_user("/account/sessions/current", shown),
            )
        except AppwriteError as error:
            if error.status == 401 or error.kind in {"user_blocked", "user_session_not_found"}:
                return None
            raise _unexpected(error) from error
        session = read(SessionModel, current).session(self._life.absolute)
        user = read(UserModel, account).user()
        now = self._clock()
        if session.expires_at <= now:
            return None
        use = await self._uses.record_use(session.id, now=now)
        if use is None:
            await self.end_session(user.id, session.id)
            return None
        return Verified(user, replace(session, by_passkey=use.by_passkey))

    async def sessions(self, user_id: str) -> list[Session]:
        """Return the user's open sessions, newest first."""
        answer = await self._of_user("GET", user_id, "/sessions")
        shown = each(SessionModel, answer, "sessions") if answer is not None else []
        found = [one.session(self._life.absolute) for one in shown]
        now = self._clock()
        still = [session for session in found if session.expires_at > now]
        return sorted(still, key=lambda session: session.created_at, reverse=True)

    async def end_session(self, user_id: str, session_id: str) -> bool:
        """End one session of the user; return False if the user has no such session."""
        path = f"/sessions/{quote(session_id, safe='')}"
        return await self._of_user("DELETE", user_id, path) is not None

    async def end_sessions(self, user_id: str) -> list[str]:
        """End all sessions of the user and return their ids."""
        open_sessions: list[Session] = []
        try:
            open_sessions = await self.sessions(user_id)
        except UpstreamError as error:
            # They end nevertheless; services learn of it when their user tokens expire.
            log.error("listing sessions failed", message=error.message)  # noqa: TRY400 - a sentence
        await self._of_user("DELETE", user_id, "/sessions")
        return [session.id for session in open_sessions]

    async def set_label(self, user_id: str, label: str, *, on: bool) -> None:
        """Add *label* to the user, or remove it."""
        path = f"/users/{quote(user_id, safe='')}"
        user = read(UserModel, await self._users_call("GET", path)).user()
        changed = list(with_label(user.labels, label, on=on))
        await self._users_call("PUT", f"{path}/labels", {"labels": changed})

    async def block(self, user_id: str, *, on: bool) -> list[str]:
        """Block the user and return the ids of the sessions that end, or unblock them."""
        path = f"/users/{quote(user_id, safe='')}/status"
        await self._users_call("PATCH", path, {"status": not on})
        return await self.end_sessions(user_id) if on else []

    async def remove_user(self, user_id: str) -> list[str]:
        """Remove the user with their sessions and return the ids of these; idempotent."""
        ended = await self.end_sessions(user_id)
        await self._of_user("DELETE", user_id, "")
        return ended

    async def users(self) -> AsyncIterator[User]:
        """Yield all users, page by page."""
        last = ""
        while True:
            queries = [{"method": "limit", "values": [PAGE]}]
            if last:
                queries.append({"method": "cursorAfter", "values": [last]})
            texts = {f"queries[{n}]": json.dumps(query) for n, query in enumerate(queries)}
            page = read(Users, await self._users_call("GET", f"/users?{urlencode(texts)}")).users
            for shown in page:
                yield shown.user()
            if len(page) < PAGE:
                return
            if page[-1].id == last:
                raise UpstreamError("Appwrite returned the same page of users again.")
            last = page[-1].id

    async def add_user(self, user: User) -> None:
        """Add *user*, who must not exist, with their labels."""
        await self._users_call("POST", "/users", {"userId": user.id, "email": user.email})
        labels = {"labels": list(user.labels)}
        await self._users_call("PUT", f"/users/{quote(user.id, safe='')}/labels", labels)
        if user.blocked:
            await self.block(user.id, on=True)

    async def _users_call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        try:
            return await self._client.as_service(method, path, body)
        except AppwriteError as error:
            raise _unexpected(error) from error

    async def _ask_for_link(self, email: str, user_id: str, language: str) -> dict[str, Any]:
        return await self._client.as_service(
            "POST",
            "/account/tokens/magic-url",
            {"userId": user_id, "email": email, "url": self._link_url},
            x_appwrite_locale=language or "fr",
        )

    async def _of_user(self, method: str, user_id: str, path: str) -> dict[str, Any] | None:
        """Call for one user; return None if the user or the resource does not exist."""
        try:
            return await self._client.as_service(method, f"/users/{quote(user_id, safe='')}{path}")
        except AppwriteError as error:
            if error.status == 404:
                return None
            raise _unexpected(error) from error


def _for_cookie(secret: str) -> str:
    """Return base64 in the URL-safe alphabet."""
    return secret.rstrip("=").translate(_TO_COOKIE)


def _from_cookie(secret: str) -> str:
    """Reverse `_for_cookie`."""
    return secret.translate(_TO_BASE64) + "=" * (-len(secret) % 4)


def _printable(text: str) -> str:
    """Return *text* without characters that are invalid in a header."""
    return "".join(char for char in text if char.isascii() and char.isprintable())


def _unexpected(error: AppwriteError) -> UpstreamError:
    log.error("appwrite rejected the request", status=error.status, fault=error.kind)
    return UpstreamError("The identity provider rejected a request of Auth.")
