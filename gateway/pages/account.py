"""Account pages: devices, passkeys, sign-out, and access to the console."""

from amarre.auth.v1 import auth_service_pb2 as pb
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import UnreadableInputError
from gateway.pages.handlers import PageHandlers, expected_error, redirect
from gateway.pages.page import form
from gateway.pages.views import Views
from gateway.sessions import cookies, log_out
from gateway.sessions.cache import Ending, Session
from mesh.chassis.errors import MeshError, UnavailableError

_SIGNED_OUT = {Ending.BEFORE: "text", Ending.NOW: "text", Ending.LATER: "unavailable"}
_SIGNED_OUT_EVERYWHERE = {
    Ending.BEFORE: "had_ended",
    Ending.NOW: "everywhere",
    Ending.LATER: "unavailable",
}
"""Keys of the texts below ``signed_out``, by when the sessions end."""
_CHOICES = {"yes": True, "no": False}


class Account(PageHandlers):
    """Handlers of the forms on the account page."""

    def __init__(self, views: Views) -> None:
        super().__init__(views.api, views.site)
        self._views = views

    async def log_out(self, request: Request) -> Response:
        """End this session, or all sessions of the user."""
        everywhere = await log_out.everywhere(request, _everywhere)
        ending = await log_out.end(self.api.sessions, request, everywhere=everywhere)
        later = UnavailableError("The session ends as soon as possible.")
        error = later if ending is Ending.LATER else None
        text = _SIGNED_OUT_EVERYWHERE[ending] if everywhere else _SIGNED_OUT[ending]
        response = self.site.render(
            request, "sign_in/signed_out.html", error=error, text=text, tab=""
        )
        cookies.clear(response)
        return response

    async def end_session(self, request: Request) -> Response:
        """End one of the user's sessions, on another device."""
        fields = await form(request)
        message = pb.EndSessionRequest(id=fields.get("id", ""))
        return await self._change(request, "EndSession", message)

    async def remove_passkey(self, request: Request) -> Response:
        """Delete one of the user's passkeys."""
        fields = await form(request)
        message = pb.RemovePasskeyRequest(id=fields.get("id", ""))
        return await self._change(request, "RemovePasskey", message, conflict="last_passkey")

    async def second_factor(self, request: Request) -> Response:
        """Turn the second factor on or off."""
        fields = await form(request)
        required = _CHOICES.get(fields.get("required", ""))
        if required is None:
            raise UnreadableInputError("The field required must be yes or no.")
        message = pb.SetSecondFactorRequest(required=required)
        conflict = "no_passkey" if message.required else "required_here"
        return await self._change(request, "SetSecondFactor", message, conflict=conflict)

    async def console(self, request: Request) -> Response:
        """Show an operator the one-time link to the console."""
        session = await self.session(request, "auth")
        reply = await self.call("auth", "EnterConsole", pb.EnterConsoleRequest(), session)
        # A link, not a redirect: the policy form-action allows only our own pages.
        return self.site.render(request, "console.html", user=session.user, tab="", url=reply.url)

    async def confirm(self, request: Request) -> Response:
        """Ask the visitor to sign in again before a sensitive change."""
        return self._again(request, await self.session(request, "auth"), None)

    async def _change(
        self, request: Request, rpc: str, message: Message, *, conflict: str = ""
    ) -> Response:
        """Change the account; asks for a fresh sign-in when one is required.

        *conflict* is the key of the text below ``account`` for a CONFLICT.
        """
        session = await self.session(request, "auth")
        try:
            await self.call("auth", rpc, message, session)
        except Exception as exc:
            error = expected_error(exc)
            if error.contract.name == "FRESH_SIGN_IN_REQUIRED":
                return self._again(request, session, error)
            if conflict and error.contract.name == "CONFLICT":
                return await self._views.own_page(
                    request, tab="account", problem=error, why=conflict
                )
            raise
        self.api.sessions.forget_user(session.user.id)
        return redirect("/?tab=account")

    def _again(self, request: Request, session: Session, error: MeshError | None) -> Response:
        return self.site.render(
            request, "sign_in/confirm.html", error=error, user=session.user, tab=""
        )


async def _everywhere(request: Request) -> bool:
    return (await form(request)).get("everywhere", "") not in {"", "no"}
