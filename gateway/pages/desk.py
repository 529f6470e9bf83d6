"""What every handler of pages stands on: the visitor's session and calls on their behalf."""

from typing import Any

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway import cookies
from gateway.envelope import as_mesh_error
from gateway.pages.site import Site
from gateway.sessions import Session
from gateway.transcode import Api
from mesh.chassis.errors import MeshError
from mesh.chassis.interceptors.validation import validate


class Desk:
    """Asks services what a page needs."""

    def __init__(self, api: Api, site: Site) -> None:
        self.api = api
        self.site = site

    async def session(self, request: Request, audience: str) -> Session:
        """
        Return the visitor's session, with a token for the service *audience*.

        Raises:
            UnauthenticatedError: Nobody is signed in.
            grpc.aio.AioRpcError: Auth refuses it, or is away.
        """
        return await self.api.sessions.verify(cookies.read(request), audience)

    async def visitor(self, request: Request) -> Any:
        """Return the signed-in user; None when there is none or it cannot be said."""
        try:
            return (await self.session(request, "survey")).user
        except Exception as exc:
            expected(exc)
            return None

    async def call(
        self, service: str, rpc: str, message: Message, session: Session | None = None
    ) -> Any:
        """Call a service, on behalf of the user of *session* where one is given."""
        validate(message)
        stub = getattr(self.api.clients, service)
        return await getattr(stub, rpc)(message, metadata=session.metadata() if session else ())

    async def ask_auth(self, request: Request, rpc: str, message: Message) -> Any:
        """Return what Auth says on behalf of the visitor; None when it cannot."""
        try:
            return await self.call("auth", rpc, message, await self.session(request, "auth"))
        except Exception as exc:
            expected(exc)
            return None


def expected(error: Exception) -> MeshError:
    """Return what went wrong, when it is something that may; else let *error* go on."""
    known = as_mesh_error(error)
    if known is None:
        raise error
    return known


def lead_on(path: str) -> Response:
    """Return the answer to a form: the page to look at next."""
    return RedirectResponse(path, status_code=303)
