"""Base of all page handlers: the visitor's session and calls on their behalf."""

from typing import Any

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.errors import OtherUserError
from gateway.pages.page import form
from gateway.pages.site import Site
from gateway.rest.envelope import as_mesh_error
from gateway.rest.transcode import Api
from gateway.sessions import cookies
from gateway.sessions.cache import Session
from mesh.chassis.errors import MeshError
from mesh.chassis.interceptors.validation import validate

MOST_PAGES = 20
"""Limit of the pages of a list that are shown; far above what one person has."""
USER_FIELD = "user"
"""Form field with the id of the user whom the page shows, from ``layout/user_field.html``."""


class PageHandlers:
    """Calls services on behalf of the visitor."""

    def __init__(self, api: Api, site: Site) -> None:
        self.api = api
        self.site = site

    async def session(self, request: Request, audience: str) -> Session:
        """Return the visitor's session, with a token for the service *audience*.

        Raises:
            UnauthenticatedError: The visitor is not signed in.
            OtherUserError: The form was rendered for another user.
            grpc.aio.AioRpcError: Auth rejects the session or is unavailable.
        """
        session = await self.api.sessions.verify(cookies.read(request), audience)
        # Another tab may have signed in someone else since the page was rendered.
        if request.method == "POST":
            fields = await form(request)
            if fields.get(USER_FIELD, session.user.id) != session.user.id:
                raise OtherUserError(session.user)
        return session

    async def visitor(self, request: Request) -> dict[str, Any]:
        """Return what the header of a page says: the user, or that it is unknown who this is."""
        try:
            return {"user": (await self.session(request, "survey")).user}
        except Exception as exc:
            return {"unknown": expected_error(exc).contract.name != "UNAUTHENTICATED"}

    async def call(
        self, service: str, rpc: str, message: Message, session: Session | None = None
    ) -> Any:
        """Call a service, on behalf of the user of *session* where one is given."""
        validate(message)
        stub = self.api.clients.stubs[service]
        return await getattr(stub, rpc)(message, metadata=session.metadata if session else ())

    async def list_all(
        self, service: str, rpc: str, message: Any, session: Session
    ) -> tuple[list[Any], bool]:
        """Return the items of all pages of a list, and whether there are more than is shown.

        The items are in the first field of each response.
        """
        items: list[Any] = []
        for _ in range(MOST_PAGES):
            reply = await self.call(service, rpc, message, session)
            items.extend(getattr(reply, reply.DESCRIPTOR.fields[0].name))
            if not reply.next_page_token:
                return items, False
            message.page_token = reply.next_page_token
        return items, True

    async def ask_auth(self, request: Request, rpc: str, message: Message) -> Any:
        """Call Auth on behalf of the visitor; None when the call fails."""
        try:
            return await self.call("auth", rpc, message, await self.session(request, "auth"))
        except Exception as exc:
            expected_error(exc)
            return None


def expected_error(error: Exception) -> MeshError:
    """Return *error* as a MeshError; raise it again when it is unexpected."""
    known = as_mesh_error(error)
    if known is None:
        raise error
    return known


def redirect(path: str) -> Response:
    """Return the redirect that follows a form."""
    return RedirectResponse(path, status_code=303)
