"""The pages of one's account: devices, passkeys, the way out, and the way into the console."""

from amarre.auth.v1 import auth_service_pb2 as pb
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response

from gateway import cookies
from gateway.pages.desk import Desk, expected, lead_on
from gateway.pages.resource import form
from gateway.pages.views import Views
from gateway.sessions import Session


class Account(Desk):
    """Handlers of the forms on the account page; what was changed is shown by *views*."""

    def __init__(self, views: Views) -> None:
        super().__init__(views.api, views.site)
        self._views = views

    async def log_out(self, request: Request) -> Response:
        """End the session, or all of the user's sessions, and say so."""
        fields = await form(request)
        secret = cookies.read(request)
        message = pb.LogOutRequest(everywhere=fields.get("everywhere") == "yes")
        problem = None
        try:
            session = await self.session(request, "auth")
            await self.call("auth", "LogOut", message, session)
            self.api.sessions.forget_user(session.user.id)
        except Exception as exc:
            problem = expected(exc)
        if secret:
            self.api.sessions.forget(secret)
        away = problem is not None and problem.contract.name != "UNAUTHENTICATED"
        response = self.site.render(
            request, "signed_out.html", 503 if away else 200, away=away, tab=""
        )
        cookies.clear(response)
        return response

    async def end_session(self, request: Request) -> Response:
        """End one of the user's sessions, on another device."""
        fields = await form(request)
        message = pb.EndSessionRequest(id=fields.get("id", ""))
        return await self._change(request, "EndSession", message)

    async def remove_passkey(self, request: Request) -> Response:
        """Forget one of the user's passkeys."""
        fields = await form(request)
        message = pb.RemovePasskeyRequest(id=fields.get("id", ""))
        return await self._change(request, "RemovePasskey", message)

    async def second_factor(self, request: Request) -> Response:
        """Ask for a passkey at each sign-in from now on, or do so no more."""
        fields = await form(request)
        message = pb.SetSecondFactorRequest(required=fields.get("required") == "yes")
        return await self._change(request, "SetSecondFactor", message)

    async def console(self, request: Request) -> Response:
        """Show an operator the one-time link into the console."""
        session = await self.session(request, "auth")
        reply = await self.call("auth", "EnterConsole", pb.EnterConsoleRequest(), session)
        # A link and no redirect: our forms lead to our own pages only, as browsers are told.
        return self.site.render(request, "console.html", user=session.user, tab="", url=reply.url)

    async def confirm(self, request: Request) -> Response:
        """Ask the visitor to sign in again, for what needs a fresh sign-in."""
        return self._again(request, await self.session(request, "auth"))

    async def _change(self, request: Request, rpc: str, message: Message) -> Response:
        """Change something of the account; asks for a fresh sign-in where it takes one."""
        session = await self.session(request, "auth")
        try:
            await self.call("auth", rpc, message, session)
        except Exception as exc:
            error = expected(exc)
            if error.contract.name == "FRESH_SIGN_IN_REQUIRED":
                return self._again(request, session, error.contract.http)
            if error.contract.name == "CONFLICT":
                return await self._views.own_page(request, tab="account", problem=error)
            raise
        self.api.sessions.forget_user(session.user.id)
        return lead_on("/?tab=account")

    def _again(self, request: Request, session: Session, status: int = 200) -> Response:
        return self.site.render(request, "confirm.html", status, user=session.user, tab="")
