"""The ASGI application: REST API, pages and the middleware around them."""

import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.clients import Clients
from gateway.config import GatewaySettings
from gateway.error_responses import ErrorResponses
from gateway.errors import MethodNotAllowedError
from gateway.pages import routes as pages
from gateway.pages.navigation import CrossSiteNavigation
from gateway.pages.page import Page
from gateway.pages.site import Site
from gateway.rest import transcode
from gateway.rest.transcode import Api
from gateway.server.admission import LEAST_IN_FLIGHT, Admission
from gateway.server.compression import Compression
from gateway.server.limits import StreamLimits
from gateway.server.middleware import RequestMiddleware
from gateway.sessions.cache import SessionCache
from gateway.sessions.revocations import follow_always
from mesh.chassis.errors import MeshError, NotFoundError
from mesh.contract import openapi, policy
from mesh.contract.wire import HEALTH_PATH

_REVOCATIONS = "/amarre.auth.v1.AuthService/WatchRevocations"
_HSTS_SECONDS = {"production": 365 * 24 * 3600, "development": 300}


@dataclass(frozen=True)
class Gateway:
    """The application and the state its endpoints share."""

    app: ASGIApp
    api: Api
    admission: Admission
    follow_revocations: Callable[[], Coroutine[Any, Any, None]]
    """Keeps the session cache up to date."""


def build(settings: GatewaySettings, clients: Clients) -> Gateway:
    """Build the application.

    Raises:
        PolicyError: The contracts are inconsistent.
    """
    site = Site()
    errors = ErrorResponses(site)
    api = Api(
        clients,
        SessionCache(clients.stubs["auth"], most=settings.gateway_sessions_cached),
        errors=errors,
        origins=settings.origins,
        behind_envoy=settings.behind_envoy,
        https_url=settings.https_url,
        streams=StreamLimits(
            per_client=settings.gateway_streams_per_client,
            per_session=settings.gateway_streams_per_session,
            total=settings.gateway_streams_total,
        ),
    )
    admission = Admission(
        target_seconds=settings.gateway_queue_target.total_seconds(),
        oldest_seconds=settings.gateway_queue_longest.total_seconds(),
        least=LEAST_IN_FLIGHT,
        most=settings.gateway_requests_in_flight,
    )
    mesh = policy.load()
    session_paths = frozenset(
        {"/", "/confirm"}
        | {route.path for method in mesh if method.needs_session for route in method.routes}
    )
    router = Router(
        [
            *transcode.routes(mesh, api),
            Route(HEALTH_PATH, Page(api, get=_healthz)),
            *pages.routes(api, site, openapi.document(mesh)),
        ],
        redirect_slashes=False,
        default=_not_found,
    )
    routed = _ExactRoutes(router)
    app = Compression(_ErrorHandler(CrossSiteNavigation(routed, site, session_paths), errors))
    outermost = RequestMiddleware(
        app,
        errors,
        behind_envoy=settings.behind_envoy,
        hsts_seconds=_HSTS_SECONDS[settings.env],
        admission=admission,
    )
    watch = clients.of(mesh.by_path[_REVOCATIONS])
    follow = functools.partial(follow_always, watch, api.sessions)
    return Gateway(outermost, api, admission, follow)


class _ExactRoutes:
    """Finds routes without parameters by their path; the router searches one by one."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._routes = {
            route.path: route
            for route in router.routes
            if isinstance(route, Route) and not route.param_convertors
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"])
        if scope["type"] == "http" and route is not None and not route.methods:
            scope["route"] = route
            await route.app(scope, receive, send)
        else:
            await self._router(scope, receive, send)


class _ErrorHandler:
    """Turns HTTP exceptions of Starlette into error responses."""

    def __init__(self, app: ASGIApp, errors: ErrorResponses) -> None:
        self._app = app
        self._errors = errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except HTTPException as exc:
            response = self._errors(Request(scope), _translate(exc))
            await response(scope, receive, send)


def _translate(error: HTTPException) -> MeshError:
    if error.status_code == 405:
        return MethodNotAllowedError(["GET", "HEAD"])
    return NotFoundError("No resource exists at this path.")


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise HTTPException(404)


async def _healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"})
