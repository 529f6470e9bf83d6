"""Sign-in and request pages."""

import asyncio
import secrets
from typing import Any
from urllib.parse import quote

from amarre.auth.v1 import auth_service_pb2 as pb
from amarre.survey.v1 import survey_service_pb2
from starlette.requests import Request
from starlette.responses import Response

from gateway.pages import languages
from gateway.pages.cards import Card, card
from gateway.pages.handlers import PageHandlers, expected_error, redirect
from gateway.pages.page import form
from gateway.rest.transcode import open_session
from gateway.sessions import cookies
from mesh.chassis.errors import MeshError

_DEVICES_PER_CALL = 200
"""The largest page of ListSessions."""
NOTICE_VERSION = "2026-01"
"""Version of the privacy notice in ``templates/notice.html``."""
UNKNOWN_OUTCOME = frozenset({"unavailable", "upstream_error", "deadline_exceeded"})
"""Codes of errors after which a request may exist nevertheless."""
_SIGNED_IN = "signed_in"
"""Marks the first page after sign-in, where the session cookie must be present."""
TABS = ("submit", "complete", "follow", "account", "data")


class Views(PageHandlers):
    """Handlers; each returns a page or a redirect."""

    async def home(self, request: Request) -> Response:
        """Show the welcome page, or the visitor's own page when signed in."""
        if not cookies.read(request):
            if _SIGNED_IN in request.query_params:
                # Safari does not keep a Secure cookie of http://localhost.
                return self.site.render(
                    request, "sign_in/no_cookie.html", https_url=self.api.https_url
                )
            return self.site.render(request, "welcome.html", tab="")
        if _SIGNED_IN in request.query_params:
            return redirect("/")
        return await self.own_page(request)

    async def create(self, request: Request) -> Response:
        """Create a request and redirect to it."""
        fields = await form(request)
        session = await self.session(request, "survey")
        message = survey_service_pb2.CreateRequestRequest(
            consent=fields.get("consent") == "yes",
            notice_version=fields.get("notice_version", ""),
            idempotency_key=fields.get("key", ""),
        )
        try:
            reply = await self.call("survey", "CreateRequest", message, session)
        except Exception as exc:
            error = expected_error(exc)
            # The same key continues a request of which the outcome is unknown.
            key = message.idempotency_key if error.contract.code in UNKNOWN_OUTCOME else ""
            return await self.own_page(request, tab="submit", problem=error, key=key)
        return redirect(f"/?tab=complete&done={quote(reply.id, safe='')}")

    async def sign_up_form(self, request: Request) -> Response:
        """Show the sign-in form."""
        return self.site.render(request, "sign_in/sign_in.html", email="")

    async def sign_up(self, request: Request) -> Response:
        """Send a sign-in link."""
        fields = await form(request)
        email = fields.get("email", "").strip()
        message = pb.SignUpRequest(
            email=email,
            client_address=self.api.client_address(request),
            language=languages.choose(request),
        )
        try:
            await self.call("auth", "SignUp", message)
        except Exception as exc:
            error = expected_error(exc)
            return self.site.render(request, "sign_in/sign_in.html", email=email, error=error)
        return self.site.render(request, "sign_in/mailed.html", email=email)

    async def link(self, request: Request) -> Response:
        """Show the page of a mailed link; only its button consumes the link."""
        return self.site.render(
            request,
            "sign_in/link.html",
            user_id=request.query_params.get("userId", "")[:64],
            secret=request.query_params.get("secret", "")[:256],
        )

    async def log_in(self, request: Request) -> Response:
        """Consume a mailed link and open a session."""
        fields = await form(request)
        message = pb.LogInRequest(
            user_id=fields.get("userId", ""),
            secret=fields.get("secret", ""),
            client_address=self.api.client_address(request),
            user_agent=request.headers.get("user-agent", "")[:512],
        )
        try:
            reply = await self.call("auth", "LogIn", message)
        except Exception as exc:
            error = expected_error(exc)
            visitor = await self.visitor(request)
            return self.site.render(request, "sign_in/link_refused.html", error=error, **visitor)
        response = redirect(f"/?{_SIGNED_IN}=1")
        await open_session(self.api.sessions, response, reply, before=cookies.read(request))
        return response

    async def notice(self, request: Request) -> Response:
        """Show the privacy notice."""
        return self.site.render(
            request, "notice.html", version=NOTICE_VERSION, **await self.visitor(request)
        )

    async def own_page(
        self,
        request: Request,
        *,
        tab: str = "",
        problem: MeshError | None = None,
        why: str = "",
        key: str = "",
    ) -> Response:
        """Show the visitor's requests, or why they cannot be shown.

        *why* is the key of the text below ``account`` that explains *problem*; *key* is the
        idempotency key of the form, by default a new one.
        """
        try:
            session = await self.session(request, "survey")
        except Exception as exc:
            return self._not_verified(request, expected_error(exc))
        outage = None
        listed: list[Card] = []
        more = False
        try:
            message = survey_service_pb2.ListRequestsRequest()
            found, more = await self.list_all("survey", "ListRequests", message, session)
            listed = [card(one) for one in found]
        except Exception as exc:
            outage = expected_error(exc)
            if outage.contract.name == "SECOND_FACTOR_REQUIRED":
                passkeys = await self.ask_auth(request, "ListPasskeys", pb.ListPasskeysRequest())
                return self.site.render(
                    request,
                    "sign_in/second_factor.html",
                    user=session.user,
                    tab="",
                    passkeys=passkeys and passkeys.passkeys,
                )
        groups = {name: [c for c in listed if c.group == name] for name in TABS}
        tab = tab or _tab(request, groups)
        account = await self._account(request) if tab == "account" else {}
        return self.site.render(
            request,
            "requests/home.html",
            error=problem or outage,
            user=session.user,
            tab=tab,
            groups=groups,
            listed=listed,
            more=more,
            outage=outage,
            problem=problem,
            why=why,
            **account,
            created=request.query_params.get("done", ""),
            notice_version=NOTICE_VERSION,
            key=key or secrets.token_hex(16),
            unknown_outcome=UNKNOWN_OUTCOME,
        )

    def _not_verified(self, request: Request, error: MeshError) -> Response:
        if error.contract.name == "UNAUTHENTICATED":
            response = self.site.render(request, "welcome.html", tab="", ended=True)
            cookies.clear(response)
            return response
        # Auth is unavailable: this is not a sign-out, so the cookie stays.
        return self.site.render(request, "error.html", error=error, unknown=True)

    async def _account(self, request: Request) -> dict[str, Any]:
        """Return the user's devices and passkeys; None for what is unavailable."""
        (devices, more_devices), passkeys = await asyncio.gather(
            self._devices(request),
            self.ask_auth(request, "ListPasskeys", pb.ListPasskeysRequest()),
        )
        return {
            "devices": devices,
            "more_devices": more_devices,
            "passkeys": passkeys and passkeys.passkeys,
        }

    async def _devices(self, request: Request) -> tuple[list[Any] | None, bool]:
        message = pb.ListSessionsRequest(page_size=_DEVICES_PER_CALL)
        try:
            session = await self.session(request, "auth")
            return await self.list_all("auth", "ListSessions", message, session)
        except Exception as exc:
            expected_error(exc)
            return None, False


def _tab(request: Request, groups: dict[str, list[Card]]) -> str:
    """Return the requested tab; by default the first one with something to do."""
    asked = request.query_params.get("tab", "")
    if asked in TABS and (groups[asked] or asked not in {"complete", "follow"}):
        return asked
    return next((name for name in ("complete", "follow") if groups[name]), "submit")
