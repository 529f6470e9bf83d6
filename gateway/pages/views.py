"""The pages of the application: what each shows and what its forms do."""

import asyncio
import secrets
from typing import Any

from amarre.auth.v1 import auth_service_pb2 as pb
from amarre.survey.v1 import survey_service_pb2
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway import cookies
from gateway.envelope import as_mesh_error
from gateway.pages import languages
from gateway.pages.cards import Card, card
from gateway.pages.resource import form
from gateway.pages.site import Site
from gateway.sessions import Session
from gateway.transcode import Api, open_session
from mesh.chassis.errors import MeshError
from mesh.chassis.interceptors.validation import validate

NOTICE_VERSION = "2026-01"
"""The version of the notice on personal data that ``templates/notice.html`` shows."""
TABS = ("submit", "complete", "follow", "account", "data")


class Views:
    """Handlers; each returns a whole page or leads on to one."""

    def __init__(self, api: Api, site: Site) -> None:
        self._api = api
        self._site = site

    async def home(self, request: Request) -> Response:
        """Show the welcome page, or the visitor's own page when signed in."""
        if not cookies.read(request):
            if request.headers.get("sec-fetch-site") == "cross-site":
                # A SameSite=Strict cookie does not come along on a click from another site:
                # ask again from here, where it does, before taking the visitor for a stranger.
                return self._site.render(request, "again.html")
            return self._site.render(request, "welcome.html", tab="")
        return await self._own_page(request)

    async def create(self, request: Request) -> Response:
        """Create a request and lead on to it."""
        fields = await form(request)
        session = await self._session(request, "survey")
        message = survey_service_pb2.CreateRequestRequest(
            consent=fields.get("consent") == "yes",
            notice_version=fields.get("notice_version", ""),
            idempotency_key=fields.get("key", ""),
        )
        try:
            await self._call("survey", "CreateRequest", message, session)
        except Exception as exc:
            error = _expected(exc)
            return await self._own_page(request, tab="submit", problem=error)
        return _lead_on("/?tab=complete&done=created")

    async def sign_up_form(self, request: Request) -> Response:
        """Show the form that asks for an address."""
        return self._site.render(request, "sign_in.html", email="", problem=None)

    async def sign_up(self, request: Request) -> Response:
        """Have a link mailed and say so."""
        fields = await form(request)
        email = fields.get("email", "").strip()
        message = pb.SignUpRequest(
            email=email,
            client_address=self._api.client_address(request),
            language=languages.choose(request),
        )
        try:
            await self._call("auth", "SignUp", message)
        except Exception as exc:
            error = _expected(exc)
            return self._site.render(
                request, "sign_in.html", error.contract.http, email=email, problem=error
            )
        return self._site.render(request, "mailed.html", email=email)

    async def link(self, request: Request) -> Response:
        """Show where a mailed link leads; only the button on the page uses the link up."""
        return self._site.render(
            request,
            "link.html",
            user_id=request.query_params.get("userId", "")[:64],
            secret=request.query_params.get("secret", "")[:256],
        )

    async def log_in(self, request: Request) -> Response:
        """Use a mailed link up and open a session."""
        fields = await form(request)
        message = pb.LogInRequest(
            user_id=fields.get("userId", ""),
            secret=fields.get("secret", ""),
            client_address=self._api.client_address(request),
            user_agent=request.headers.get("user-agent", "")[:512],
        )
        try:
            reply = await self._call("auth", "LogIn", message)
        except Exception as exc:
            error = _expected(exc)
            return self._site.render(
                request, "link_refused.html", error.contract.http, problem=error
            )
        response = _lead_on("/")
        await open_session(self._api.sessions, response, reply, before=cookies.read(request))
        return response

    async def log_out(self, request: Request) -> Response:
        """End the session, or all of the user's sessions, and say so."""
        fields = await form(request)
        secret = cookies.read(request)
        message = pb.LogOutRequest(everywhere=fields.get("everywhere") == "yes")
        problem = None
        try:
            session = await self._session(request, "auth")
            await self._call("auth", "LogOut", message, session)
            self._api.sessions.forget_user(session.user.id)
        except Exception as exc:
            problem = _expected(exc)
        if secret:
            self._api.sessions.forget(secret)
        away = problem is not None and problem.contract.name != "UNAUTHENTICATED"
        response = self._site.render(
            request, "signed_out.html", 503 if away else 200, away=away, tab=""
        )
        cookies.clear(response)
        return response

    async def end_session(self, request: Request) -> Response:
        """End one of the user's sessions, on another device."""
        fields = await form(request)
        session = await self._session(request, "auth")
        message = pb.EndSessionRequest(id=fields.get("id", ""))
        return await self._change(request, "EndSession", message, session)

    async def remove_passkey(self, request: Request) -> Response:
        """Forget one of the user's passkeys."""
        fields = await form(request)
        session = await self._session(request, "auth")
        message = pb.RemovePasskeyRequest(id=fields.get("id", ""))
        return await self._change(request, "RemovePasskey", message, session)

    async def second_factor(self, request: Request) -> Response:
        """Ask for a passkey at each sign-in from now on, or do so no more."""
        fields = await form(request)
        session = await self._session(request, "auth")
        message = pb.SetSecondFactorRequest(required=fields.get("required") == "yes")
        return await self._change(request, "SetSecondFactor", message, session)

    async def console(self, request: Request) -> Response:
        """Show an operator the one-time link into the console."""
        session = await self._session(request, "auth")
        reply = await self._call("auth", "EnterConsole", pb.EnterConsoleRequest(), session)
        # A link and no redirect: our forms lead to our own pages only, as browsers are told.
        return self._site.render(request, "console.html", user=session.user, tab="", url=reply.url)

    async def confirm(self, request: Request) -> Response:
        """Ask the visitor to sign in again, for what needs a fresh sign-in."""
        return self._again(request, await self._session(request, "auth"))

    async def _change(
        self, request: Request, rpc: str, message: Message, session: Session
    ) -> Response:
        """Change something of the account; asks for a fresh sign-in where it takes one."""
        try:
            await self._call("auth", rpc, message, session)
        except Exception as exc:
            error = _expected(exc)
            if error.contract.name == "FRESH_SIGN_IN_REQUIRED":
                return self._again(request, session, error.contract.http)
            if error.contract.name == "CONFLICT":
                return await self._own_page(request, tab="account", problem=error)
            raise
        self._api.sessions.forget_user(session.user.id)
        return _lead_on("/?tab=account")

    def _again(self, request: Request, session: Session, status: int = 200) -> Response:
        return self._site.render(request, "confirm.html", status, user=session.user, tab="")

    async def notice(self, request: Request) -> Response:
        """Show the notice on personal data."""
        return self._site.render(
            request, "notice.html", user=await self._visitor(request), version=NOTICE_VERSION
        )

    async def _own_page(
        self, request: Request, *, tab: str = "", problem: MeshError | None = None
    ) -> Response:
        """Show the visitor's requests, or what keeps them from being shown."""
        try:
            session = await self._session(request, "survey")
        except Exception as exc:
            return self._not_verified(request, _expected(exc))
        outage = None
        listed: list[Card] = []
        try:
            reply = await self._call(
                "survey", "ListRequests", survey_service_pb2.ListRequestsRequest(), session
            )
            listed = [card(one) for one in reply.requests]
        except Exception as exc:
            outage = _expected(exc)
            if outage.contract.name == "SECOND_FACTOR_REQUIRED":
                passkeys = await self._ask_auth(request, "ListPasskeys", pb.ListPasskeysRequest())
                return self._site.render(
                    request,
                    "second_factor.html",
                    user=session.user,
                    tab="",
                    passkeys=passkeys and passkeys.passkeys,
                )
        groups = {name: [c for c in listed if c.group == name] for name in TABS}
        tab = tab or _tab(request, groups)
        account = await self._account(request) if tab == "account" else {}
        failed = problem or outage
        status = failed.contract.http if failed else 200
        return self._site.render(
            request,
            "home.html",
            status,
            user=session.user,
            tab=tab,
            groups=groups,
            listed=listed,
            outage=outage,
            problem=problem,
            **account,
            done=request.query_params.get("done", ""),
            notice_version=NOTICE_VERSION,
            key=secrets.token_hex(16),
        )

    def _not_verified(self, request: Request, error: MeshError) -> Response:
        if error.contract.name == "UNAUTHENTICATED":
            response = self._site.render(request, "welcome.html", tab="", ended=True)
            cookies.clear(response)
            return response
        # Auth is away: that must not look like being signed out, and the cookie stays.
        return self._site.render(
            request, "error.html", error.contract.http, code=error.contract.code, error=error
        )

    async def _account(self, request: Request) -> dict[str, Any]:
        """Return the user's devices and passkeys; None for what Auth cannot say."""
        devices, passkeys = await asyncio.gather(
            self._ask_auth(request, "ListSessions", pb.ListSessionsRequest()),
            self._ask_auth(request, "ListPasskeys", pb.ListPasskeysRequest()),
        )
        return {
            "devices": devices and devices.sessions,
            "passkeys": passkeys and passkeys.passkeys,
        }

    async def _ask_auth(self, request: Request, rpc: str, message: Message) -> Any:
        try:
            return await self._call("auth", rpc, message, await self._session(request, "auth"))
        except Exception as exc:
            _expected(exc)
            return None

    async def _visitor(self, request: Request) -> Any:
        """Return the signed-in user; None when there is none or it cannot be said."""
        try:
            return (await self._session(request, "survey")).user
        except Exception as exc:
            _expected(exc)
            return None

    async def _session(self, request: Request, audience: str) -> Session:
        return await self._api.sessions.verify(cookies.read(request), audience)

    async def _call(
        self, service: str, rpc: str, message: Message, session: Session | None = None
    ) -> Any:
        validate(message)
        stub = getattr(self._api.clients, service)
        return await getattr(stub, rpc)(message, metadata=session.metadata() if session else ())


def _expected(error: Exception) -> MeshError:
    """Return what went wrong, when it is something that may; else let *error* go on."""
    known = as_mesh_error(error)
    if known is None:
        raise error
    return known


def _tab(request: Request, groups: dict[str, list[Card]]) -> str:
    """Return the tab asked for; without one, where there is something to do."""
    asked = request.query_params.get("tab", "")
    if asked in TABS and (groups[asked] or asked not in {"complete", "follow"}):
        return asked
    return next((name for name in ("complete", "follow") if groups[name]), "submit")


def _lead_on(path: str) -> Response:
    return RedirectResponse(path, status_code=303)
