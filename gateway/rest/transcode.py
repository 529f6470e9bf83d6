"""REST API generated from the contracts: one Starlette route per ``google.api.http`` path.

An endpoint checks the origin, verifies the session, binds the request, calls the service and
prints the response. The contract of the method says which of these steps apply.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import Any

from amarre.auth.v1 import auth_service_pb2
from amarre.mesh.v1 import policy_pb2 as pb
from amarre.mesh.v1.file_chunk_pb2 import FileChunk
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.clients import Clients
from gateway.error_responses import ErrorResponses
from gateway.errors import MethodNotAllowedError
from gateway.rest import binding, downloads
from gateway.rest.envelope import as_mesh_error, success
from gateway.rest.event_stream import EVENT_STREAM, EventStream
from gateway.rest.fan_out import FanOut
from gateway.rest.json_printer import answer_status, field_to_json
from gateway.server.admission import received_at
from gateway.server.limits import StreamLimits, client_network
from gateway.server.request_telemetry import set_method
from gateway.sessions import cookies, log_out, same_origin
from gateway.sessions.cache import Ending, Session, SessionCache
from gateway.sessions.origin import Origin
from mesh.chassis.errors import (
    DeadlineExceededError,
    MeshError,
    UnauthenticatedError,
    UnavailableError,
)
from mesh.chassis.interceptors.validation import validate
from mesh.contract.openapi import NEXT_PAGE_FIELD, NEXT_PAGE_HEADER
from mesh.contract.policy import Mesh, Method, Route
from mesh.contract.reasons import MESSAGES


class Api:
    """Dependencies shared by all endpoints."""

    def __init__(
        self,
        clients: Clients,
        sessions: SessionCache,
        *,
        errors: ErrorResponses,
        origins: Iterable[Origin],
        behind_envoy: bool,
        https_url: str = "",
        streams: StreamLimits,
    ) -> None:
        self.clients = clients
        self.sessions = sessions
        self.errors = errors
        self.origins = frozenset(origins)
        self.behind_envoy = behind_envoy
        self.streams = streams
        self.https_url = https_url
        """First HTTPS origin of our own pages; empty if there is none."""
        self.stopping = asyncio.Event()
        """Set at shutdown; streams then end."""

    def client_headers(self, request: Request) -> dict[str, list[str]]:
        """Return the request headers plus the client address seen by the edge."""
        headers: dict[str, list[str]] = defaultdict(list)
        for name, value in request.headers.items():
            headers[name].append(value)
        headers[binding.CLIENT_ADDRESS] = [self.client_address(request)]
        return headers

    def client_address(self, request: Request) -> str:
        """Return the network address of the client; empty when unknown.

        Behind Envoy: the address Envoy determined, or else the last entry of X-Forwarded-For,
        which Envoy appended. Otherwise the peer address.
        """
        if not self.behind_envoy:
            return request.client.host if request.client else ""
        found = request.headers.get("x-envoy-external-address")
        return found or request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()


def routes(mesh: Mesh, api: Api) -> list[StarletteRoute]:
    """Return one route per path in the contracts."""
    paths: dict[str, dict[str, Endpoint]] = defaultdict(dict)
    for method in mesh:
        for route in method.routes:
            paths[route.path][route.verb] = Endpoint(api, method, route)
    return [StarletteRoute(path, Resource(verbs)) for path, verbs in paths.items()]


class Resource:
    """One path: dispatches by HTTP method."""

    def __init__(self, endpoints: Mapping[str, "Endpoint"]) -> None:
        self._endpoints = dict(endpoints)
        if "GET" in endpoints:
            self._endpoints["HEAD"] = endpoints["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["method"])
        if endpoint is None:
            raise MethodNotAllowedError(self._endpoints)
        response = await endpoint.answer(Request(scope, receive))
        await response(scope, receive, send)


class Endpoint:
    """One HTTP route of one rpc."""

    def __init__(self, api: Api, method: Method, route: Route) -> None:
        self._api = api
        self._method = method
        self._route = route
        self._call = api.clients.of(method)
        self._fan_out: FanOut | None = None
        self._seconds = method.deadline_seconds
        field = method.descriptor.output_type.fields_by_name.get(route.response_body)
        self._is_file = (
            method.streams
            and field is not None
            and field.message_type is not None
            and field.message_type.full_name == FileChunk.DESCRIPTOR.full_name
        )

    async def answer(self, request: Request) -> ASGIApp:
        """Return the response to *request*; errors become responses too."""
        set_method(request.scope, self._method)
        try:
            same_origin.require(request, self._api.origins)
        except MeshError as error:
            return self._api.errors(request, error)
        if self._method.session_effect == pb.SESSION_EFFECT_CLOSE:
            return await self._log_out(request)
        secret = cookies.read(request)
        try:
            # From the first byte at the edge, queues included.
            async with asyncio.timeout_at(received_at(request.scope) + self._seconds):
                return await self._answer(request, secret)
        except TimeoutError:
            late = DeadlineExceededError(MESSAGES["DEADLINE_EXCEEDED"])
            return self._error_response(request, late, secret)
        except ClientDisconnect:
            return Response(status_code=400)  # The client is gone.
        except Exception as exc:
            known = as_mesh_error(exc)
            if known is None:
                raise
            return self._error_response(request, known, secret)

    async def _answer(self, request: Request, secret: str) -> ASGIApp:
        method = self._method
        session = None
        if method.needs_session:
            session = await self._api.sessions.verify(secret, method.service)
        message = await self._bind(request)
        metadata = session.metadata if session else ()
        if self._is_file:
            return await downloads.respond(
                self._call(message, metadata=metadata), self._route.response_body
            )
        if method.streams:
            return await self._stream(request, message, secret, session)
        reply = await self._call(message, metadata=metadata)
        status = answer_status(reply, method.rest.status_field)
        response = success(field_to_json(reply, self._route.response_body), status)
        if self._route.response_body and getattr(reply, NEXT_PAGE_FIELD, ""):
            response.headers[NEXT_PAGE_HEADER] = reply.next_page_token
        await self._apply_session_effect(response, reply, secret, session)
        return response

    async def _log_out(self, request: Request) -> Response:
        everywhere = await log_out.everywhere(request, self._everywhere)
        match await log_out.end(self._api.sessions, request, everywhere=everywhere):
            case Ending.NOW:
                reply = auth_service_pb2.LogOutResponse(logged_out=True)
                response = success(field_to_json(reply, self._route.response_body))
            case Ending.BEFORE:
                response = self._api.errors(
                    request, UnauthenticatedError(MESSAGES["UNAUTHENTICATED"])
                )
            case Ending.LATER:
                later = UnavailableError("The session ends as soon as possible.")
                response = self._api.errors(request, later)
        cookies.clear(response)
        return response

    async def _everywhere(self, request: Request) -> bool:
        return bool((await self._bind(request)).everywhere)

    async def _bind(self, request: Request) -> Any:
        if self._route.body:
            message = await self._from_body(request)
        else:
            message = binding.from_query(self._method, request.scope["query_string"])
        if binding.shape(self._method.descriptor.input_type).headers:
            binding.fill_headers(message, self._api.client_headers(request))
        validate(message)
        return message

    async def _from_body(self, request: Request) -> Message:
        binding.reject_query(request.scope["query_string"])
        headers = request.headers
        binding.require_identity(headers.getlist("content-encoding"))
        return binding.from_body(
            self._method, await request.body(), headers.getlist("content-type")
        )

    async def _stream(
        self, request: Request, message: Message, secret: str, session: Session | None
    ) -> ASGIApp:
        if request.method == "HEAD":
            return Response(headers={"content-type": EVENT_STREAM})
        client = "" if session else client_network(self._api.client_address(request))
        release = self._api.streams.acquire(client, secret if session else "")
        try:
            call = self._open(message, session)
        except BaseException:
            release()
            raise

        async def still_allowed() -> bool:
            if session is None:
                return True
            try:
                await self._api.sessions.verify(secret, self._method.service)
            except Exception as exc:
                error = as_mesh_error(exc)
                if error is None or error.contract.name == "UNAUTHENTICATED":
                    return False
            return True  # While Auth is unavailable, open streams continue.

        return await EventStream(
            call,
            still_allowed=still_allowed,
            stopping=self._api.stopping,
            on_close=release,
        ).begin()

    def _open(self, message: Message, session: Session | None) -> Any:
        """Open the upstream watch; streams without a session share one."""
        if session is not None:
            return self._call(message, metadata=session.metadata)
        if self._fan_out is None:
            empty = binding.shape(self._method.descriptor.input_type).new()
            self._fan_out = FanOut(
                lambda: self._call(empty),
                lifetime_seconds=self._method.deadline_seconds,
            )
        return self._fan_out.subscribe(getattr(message, "last_event_id", ""))

    async def _apply_session_effect(
        self, response: Response, reply: Any, secret: str, session: Session | None
    ) -> None:
        effect = self._method.session_effect
        if effect == pb.SESSION_EFFECT_UNSPECIFIED:
            return
        if session is not None:
            self._api.sessions.forget_user(session.user.id)
        if effect == pb.SESSION_EFFECT_OPEN:
            await open_session(self._api.sessions, response, reply, before=secret)

    def _error_response(self, request: Request, error: MeshError, secret: str) -> Response:
        response = self._api.errors(request, error, self._method.descriptor.input_type)
        if secret and error.contract.name == "UNAUTHENTICATED":
            self._api.sessions.forget(secret)
        return response


async def open_session(
    sessions: SessionCache, response: Response, reply: Any, *, before: str
) -> None:
    """Make the session that *reply* opens the cookie of *response*; the one *before* ends."""
    if before:
        await sessions.end(before)
    expires_at = reply.session_expire_time.ToDatetime(UTC)
    cookies.put(response, reply.session_secret, expires_at)
