"""Server interceptor: caller, policy, load, user, rules, deadline, errors, telemetry.

One wrapper per handler, created once, costs less than a chain of interceptors and shows the order
in one place.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import structlog
from opentelemetry.trace import Span

from mesh.chassis import call, telemetry
from mesh.chassis.errors import (
    DeadlineExceededError,
    MeshError,
    PermissionDeniedError,
    RemoteError,
    UnauthenticatedError,
    UnavailableError,
    from_rpc_error,
    to_trailers,
)
from mesh.chassis.interceptors.authorization import authorize_caller, authorize_user
from mesh.chassis.interceptors.context import Context
from mesh.chassis.interceptors.peer import Identify
from mesh.chassis.interceptors.validation import validate
from mesh.chassis.telemetry import names, rpc, tracing
from mesh.chassis.tokens import TokenVerifier
from mesh.contract.policy import Mesh, Method

log = structlog.get_logger("access")

REFLECTION = "/grpc.reflection."
_SPAN_FACTS = {names.RPC_SYSTEM: "grpc"}
_Handler = Any
"""A handler, sync or async; gRPC's types only describe the sync one."""


class Pipeline(grpc.aio.ServerInterceptor):
    """Enforces the contract around every handler of a server."""

    def __init__(
        self,
        mesh: Mesh,
        identify: Identify,
        tokens: TokenVerifier | None,
        transport: str = "direct",
    ) -> None:
        self._mesh = mesh
        self._identify = identify
        self._tokens = tokens
        self._behind_proxy = transport == "sidecar"
        self._wrapped: dict[str, _Handler] = {}
        self._in_flight = 0
        self._open: set[asyncio.Timeout] = set()
        self._limits = {s.name: s.max_concurrent_requests for s in mesh.services}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Return the wrapped handler; gRPC's own services keep theirs, reflection is guarded."""
        path = handler_call_details.method
        wrapped = self._wrapped.get(path)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return handler
            method = self._mesh.by_path.get(path)
            if method is not None:
                wrapped = self._wrap(handler, method)
            elif path.startswith(REFLECTION):
                wrapped = self._guard(handler)
            else:
                wrapped = handler
            self._wrapped[path] = wrapped
        return wrapped

    def _wrap(self, handler: _Handler, method: Method) -> _Handler:
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(handler.unary_stream, method),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(handler.unary_unary, method),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _unary(self, inner: Any, method: Method) -> Any:
        async def serve(request: Any, context: Context) -> Any:
            async with self._call(method, context):
                validate(request)
                return await inner(request, context)

        return serve

    def _stream(self, inner: Any, method: Method) -> Any:
        async def serve(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._call(method, context):
                validate(request)
                async for response in inner(request, context):
                    yield response

        return serve

    @asynccontextmanager
    async def _call(self, method: Method, context: Context) -> AsyncIterator[None]:
        """Admit a call, apply its deadline and convert what it raises into a status."""
        started = time.perf_counter()
        failed: MeshError | None = None
        code = ""
        metadata = context.invocation_metadata()
        span = rpc.server_span(metadata)
        call.to_canary.set((call.CANARY_HEADER, "1") in (metadata or ()))
        try:
            async with self._admitted(method, context) as seconds, asyncio.timeout(seconds) as end:
                with self._ends(method, end):
                    yield
        except MeshError as error:
            failed = _for_the_caller(error)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except grpc.aio.AbortError:
            code = "UNKNOWN"
            raise
        except grpc.aio.AioRpcError as error:
            failed = _for_the_caller(from_rpc_error(error))
        except TimeoutError:
            failed = DeadlineExceededError("The call took longer than its deadline.")
        except Exception:
            log.exception("handler failed", rpc=method.short_name)
            failed = MeshError("An unexpected error occurred; see the log for details.")
        finally:
            code = code or ("OK" if failed is None else failed.code.name)
            self._record(method, code, failed, seconds=time.perf_counter() - started, span=span)
        if failed is not None:
            await context.abort(failed.code, failed.message, to_trailers(failed))

    @contextmanager
    def _ends(self, method: Method, end: asyncio.Timeout) -> Iterator[None]:
        """Track a stream that stays open, so that it can be ended."""
        if not method.stays_open:
            yield
            return
        self._open.add(end)
        try:
            yield
        finally:
            self._open.discard(end)

    def end_open_streams(self) -> None:
        """End the streams that stay open, as their deadline would; clients reopen them."""
        for end in self._open:
            if not end.expired():
                end.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def _admitted(self, method: Method, context: Context) -> AsyncIterator[float]:
        """Admit a call; yields its deadline in seconds."""
        caller = self._identify(context)
        seconds = method.deadline.total_seconds()
        left = context.time_remaining()
        if left is not None:
            seconds = min(seconds, left)
        ends_at = asyncio.get_running_loop().time() + seconds
        call.enter(call.Call(method.short_name, caller, ends_at))
        if method.stays_open:  # Its end may be hours away, but its caller is known now.
            telemetry.RPC_CALLS.labels(method.service, method.name, caller.name).inc()
        authorize_caller(method, caller)
        user = await authorize_user(method, caller, context, self._tokens)
        if user is not None:
            telemetry.ACTIVE_USERS.saw(user.id)
        call.enter(call.Call(method.short_name, caller, ends_at, user))
        # Streams that stay open have limits of their own; they would exhaust this one.
        counted = not method.stays_open
        if counted and self._in_flight >= self._limits[method.service]:
            raise UnavailableError("The service has reached its limit of concurrent calls.")
        self._in_flight += counted
        gauge = telemetry.RPC_IN_FLIGHT.labels(method.service)
        gauge.inc()
        try:
            yield seconds
        finally:
            self._in_flight -= counted
            gauge.dec()

    def _guard(self, handler: _Handler) -> _Handler:
        """Allow reflection only to the operator identity."""

        async def serve(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            caller = self._identify(context)
            if caller.name != "operator":
                await context.abort(
                    grpc.StatusCode.PERMISSION_DENIED, "Reflection is for the operator identity."
                )
            async for response in handler.stream_stream(requests, context):
                yield response

        return grpc.stream_stream_rpc_method_handler(
            serve, handler.request_deserializer, handler.response_serializer
        )

    def _record(
        self,
        method: Method,
        code: str,
        failed: MeshError | None,
        *,
        seconds: float,
        span: Span | None,
    ) -> None:
        """Record a call that has ended: metrics, span, log line."""
        reason = "" if failed is None else failed.contract.name
        current = call.current()
        caller = "none" if current is None else current.caller.name
        kind = telemetry.kind_of(code, seconds, method.objective.latency)
        telemetry.RPC_SECONDS.labels(method.service, method.name, code, reason).observe(
            seconds, telemetry.exemplar()
        )
        if not method.stays_open or current is None:
            telemetry.RPC_CALLS.labels(method.service, method.name, caller).inc()
        if isinstance(failed, PermissionDeniedError | UnauthenticatedError):
            telemetry.REFUSALS.labels(method.service, method.name, reason).inc()
        if self._is_logged(kind, span):
            _log(method, code, failed, kind=kind, seconds=seconds)
        if span is not None or kind in {names.KIND_ERROR, names.KIND_SLOW}:
            _trace(method, code, reason, caller=caller, seconds=seconds, span=span)

    def _is_logged(self, kind: str, span: Span | None) -> bool:
        """Whether a call gets a line: always an unusual one, an ordinary one if sampled.

        Behind a sidecar the proxy writes the access line of an ordinary call.
        """
        return kind != names.KIND_ACCESS or (
            not self._behind_proxy and (span is not None or tracing.share() >= 1)
        )


def _log(method: Method, code: str, failed: MeshError | None, *, kind: str, seconds: float) -> None:
    facts: dict[str, Any] = {"code": code, "duration_ms": round(seconds * 1000, 2), "kind": kind}
    if isinstance(failed, PermissionDeniedError | UnauthenticatedError):
        facts["policy"] = method.source
    if failed is not None:
        reason = failed.contract.name
        facts |= {"reason": reason, "message": failed.message, **failed.metadata}
    log.info("call", rpc=method.short_name, **facts)


def _trace(
    method: Method, code: str, reason: str, *, caller: str, seconds: float, span: Span | None
) -> None:
    facts = {names.RPC_METHOD: names.span_of(method.path), names.RPC_STATUS: code}
    facts[names.CALLER] = caller
    current = call.current()
    if current is not None and current.user is not None:
        facts[names.USER] = telemetry.pseudonym(current.user.id)
    if code in names.SECURITY_CODES:
        facts[names.POLICY] = method.source
    error = reason if code in names.FAULT_CODES else ""
    if span is not None:
        tracing.mark(span, facts, error=error)
    else:
        tracing.record_late(
            names.span_of(method.path), {**_SPAN_FACTS, **facts}, seconds=seconds, error=error
        )


def _for_the_caller(error: MeshError) -> MeshError:
    """Convert a failure behind this service for its own caller.

    Unavailability of another service is passed on; any other error of it is our fault.
    """
    if isinstance(error, RemoteError):
        if error.contract.name in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "UPSTREAM_ERROR"}:
            return error
        log.error("another service refused", reason=error.contract.name, message=error.message)
        return MeshError("Another service rejected a request of this one.")
    return error
