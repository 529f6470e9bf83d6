"""The gateway as one application: the REST API, the pages, and the frame around both."""

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import transcode
from gateway.clients import Clients
from gateway.config import GatewaySettings
from gateway.envelope import failure
from gateway.errors import MethodNotAllowedError
from gateway.frame import Frame
from gateway.pages import routes as pages
from gateway.pages.resource import error_page
from gateway.pages.site import Site
from gateway.sessions import Sessions
from gateway.transcode import Api
from mesh.chassis.errors import MeshError, NotFoundError
from mesh.contract import openapi, policy

_COMPRESSED_FROM_BYTES = 1024
_HSTS_SECONDS = {"production": 365 * 24 * 3600, "development": 300}


@dataclass(frozen=True)
class Gateway:
    """The application, and what its endpoints share."""

    app: ASGIApp
    api: Api


def build(settings: GatewaySettings, clients: Clients) -> Gateway:
    """
    Make the application.

    Raises:
        PolicyError: The contracts contradict themselves.
    """
    api = Api(
        clients,
        Sessions(clients.auth),
        origins=settings.origins,
        behind_envoy=settings.behind_envoy,
    )
    site = Site()
    mesh = policy.load()
    router = Router(
        [
            *transcode.routes(mesh, api),
            Route("/healthz", _healthz),
            *pages.routes(api, site, openapi.document(mesh)),
        ],
        redirect_slashes=False,
        default=_nowhere,
    )
    app = GZipMiddleware(
        _Answered(router, site), minimum_size=_COMPRESSED_FROM_BYTES, compresslevel=4
    )
    frame = Frame(app, behind_envoy=settings.behind_envoy, hsts_seconds=_HSTS_SECONDS[settings.env])
    return Gateway(frame, api)


class _Answered:
    """Answers what an application raises."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except HTTPException as exc:
            response = self._explain(Request(scope), _as_ours(exc))
            await response(scope, receive, send)

    def _explain(self, request: Request, error: MeshError) -> Response:
        if request.scope["path"].startswith("/api/"):
            return failure(error)
        return error_page(request, self._site, error)


def _as_ours(error: HTTPException) -> MeshError:
    if error.status_code == 405:
        return MethodNotAllowedError(["GET", "HEAD"])
    return NotFoundError("There is nothing at this path.")


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    raise HTTPException(404)


async def _healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"})
