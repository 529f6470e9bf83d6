"""Wraps handlers: caller, policy, load, user, rules, deadline, errors, telemetry.

One wrapper per handler, created once, costs less than a chain of interceptors and shows the order
in one place.
"""

import asyncio
import functools
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

import grpc
import structlog
from opentelemetry import trace
from opentelemetry.trace import Span

from mesh.chassis import call, telemetry
from mesh.chassis.call import User
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
from mesh.chassis.identity import SpiffeId
from mesh.chassis.interceptors.authorization import authorize_caller, authorize_user
from mesh.chassis.interceptors.context import Context, Metadata, metadata
from mesh.chassis.interceptors.peer import Identify
from mesh.chassis.interceptors.validation import validate
from mesh.chassis.telemetry import names, rpc, tracing
from mesh.chassis.tokens import TokenVerifier
from mesh.contract.policy import Mesh, Method
from mesh.contract.reasons import CALL_MESSAGES
from mesh.contract.wire import CANARY_HEADER, REFLECTION

log = structlog.get_logger("access")

_REFLECTION = tuple(f"/{service}/" for service in REFLECTION)
_SPAN_FACTS = {names.RPC_SYSTEM: "grpc"}
_Handler = Any
"""A handler, sync or async; gRPC's types only describe the sync one."""


class Pipeline:
    """Enforces the contract around every handler of a server.

    Handlers are wrapped when they are registered: a gRPC interceptor would be asked for the handler
    of each call again.
    """

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
        self.behind_proxy = transport == "sidecar"
        self._in_flight = 0
        self._open: set[_Serving] = set()
        self._limits = {s.name: s.max_concurrent_requests for s in mesh.services}

    @property
    def in_flight(self) -> int:
        """Number of calls being served, long-lived streams included."""
        return self._in_flight + len(self._open)

    def wrap(self, path: str, handler: _Handler) -> _Handler:
        """Return *handler* with the policy of the method at *path*; reflection is guarded.

        Raises:
            KeyError: No contract has the method.
        """
        if path.startswith(_REFLECTION):
            return self._guard(handler)
        method = self._mesh.by_path[path]
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(handler, method),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(handler, method),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _unary(self, handler: _Handler, method: Method) -> Any:
        inner = handler.unary_unary

        async def serve(request: Any, context: Context) -> Any:
            async with _Serving(self, method, context) as serving:
                await serving.admit()
                validate(request)
                return await inner(request, context)

        traced = rpc.traced(method.path, grpc.unary_unary_rpc_method_handler(serve)).unary_unary

        async def begin(request: Any, context: Context) -> Any:
            return await (traced if _begin(context) else serve)(request, context)

        return begin

    def _stream(self, handler: _Handler, method: Method) -> Any:
        inner = handler.unary_stream

        async def serve(request: Any, context: Context) -> AsyncIterator[Any]:
            async with _Serving(self, method, context) as serving:
                await serving.admit()
                validate(request)
                async for response in inner(request, context):
                    # Cancelled while it sends, gRPC would not answer at all.
                    serving.pause()
                    yield response
                    await serving.resume()

        traced = rpc.traced(method.path, grpc.unary_stream_rpc_method_handler(serve)).unary_stream

        async def begin(request: Any, context: Context) -> AsyncIterator[Any]:
            responses = (traced if _begin(context) else serve)(request, context)
            async for response in responses:
                yield response

        return begin

    def end_open_streams(self) -> None:
        """End long-lived streams as if their lifetime had passed; clients reopen them."""
        for serving in self._open:
            serving.end()

    def identify(self, context: Context, metadata: Metadata) -> SpiffeId:
        """Return the caller, see `mesh.chassis.interceptors.peer`."""
        return self._identify(context, metadata)

    async def user(self, method: Method, caller: SpiffeId, metadata: Metadata) -> User:
        """Return the signed-in user, see `authorize_user`."""
        return await authorize_user(method, caller, metadata, self._tokens)

    def enter(self, method: Method, serving: "_Serving") -> None:
        """Count a new call.

        Raises:
            UnavailableError: Too many are being served.
        """
        if method.stays_open:
            # A long-lived stream has its own limit, would exhaust this one, and can be ended.
            self._open.add(serving)
        elif self._in_flight >= self._limits[method.service]:
            raise UnavailableError("The service has reached its limit of concurrent calls.")
        else:
            self._in_flight += 1

    def leave(self, method: Method, serving: "_Serving") -> None:
        """Count a call that has ended."""
        if method.stays_open:
            self._open.discard(serving)
        else:
            self._in_flight -= 1

    def _guard(self, handler: _Handler) -> _Handler:
        """Allow reflection only to the operator identity."""

        async def serve(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            _begin(context)
            caller = self._identify(context, metadata.get())
            if caller.name != "operator":
                await context.abort(
                    grpc.StatusCode.PERMISSION_DENIED, "Reflection is for the operator identity."
                )
            async for response in handler.stream_stream(requests, context):
                yield response

        return grpc.stream_stream_rpc_method_handler(
            serve, handler.request_deserializer, handler.response_serializer
        )


class _Serving:
    """One call while it is served: admits it, applies its deadline, converts what is raised.

    A class and not a generator, because every call passes it.
    """

    __slots__ = (
        "_context",
        "_counted",
        "_ends_at",
        "_metadata",
        "_method",
        "_pipeline",
        "_span",
        "_started",
        "_timeout",
    )

    def __init__(self, pipeline: Pipeline, method: Method, context: Context) -> None:
        self._started = time.perf_counter()
        self._pipeline = pipeline
        self._method = method
        self._context = context
        self._metadata = metadata.get()
        span = trace.get_current_span()
        self._span = span if span.is_recording() else None
        self._counted = False
        call.to_canary.set((CANARY_HEADER, "1") in self._metadata)
        left, seconds = context.time_remaining(), method.deadline_seconds
        seconds = seconds if left is None else min(seconds, left)
        self._ends_at = asyncio.get_running_loop().time() + seconds
        self._timeout = asyncio.timeout_at(self._ends_at)

    async def __aenter__(self) -> "_Serving":
        await self._timeout.__aenter__()
        return self

    def pause(self) -> None:
        """Suspend the deadline while gRPC sends a message."""
        self._timeout.reschedule(None)

    async def resume(self) -> None:
        """Apply the deadline again."""
        self._timeout.reschedule(self._ends_at)
        if asyncio.get_running_loop().time() >= self._ends_at:
            await asyncio.sleep(0)  # Here it takes effect.

    def end(self) -> None:
        """End the call as if its deadline had passed."""
        self._ends_at = asyncio.get_running_loop().time()
        if self._timeout.when() is not None and not self._timeout.expired():
            self._timeout.reschedule(self._ends_at)

    async def admit(self) -> None:
        """Admit the call, or raise the error for the caller."""
        method = self._method
        caller = self._pipeline.identify(self._context, self._metadata)
        call.enter(call.Call(method.short_name, caller, self._ends_at))
        if method.stays_open:  # The stream may last for hours, but its caller is known now.
            _calls_of(method.service, method.name, caller.name).inc()
        authorize_caller(method, caller)
        if method.needs_session:
            user = await self._pipeline.user(method, caller, self._metadata)
            telemetry.ACTIVE_USERS.saw(user.id)
            call.enter(call.Call(method.short_name, caller, self._ends_at, user))
        self._pipeline.enter(method, self)
        self._counted = True

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Record how the call ended; return whether it ends well in spite of *error*."""
        if self._counted:
            self._pipeline.leave(self._method, self)
        lifetime_over = False
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as late:
            # For a stream that stays open the deadline is a lifetime. Reaching it is not a failure.
            lifetime_over = self._counted and self._method.stays_open
            error = None if lifetime_over else late
        code, failed = "OK", None
        if isinstance(error, asyncio.CancelledError):
            code = "CANCELLED"
        elif isinstance(error, grpc.aio.AbortError):
            code = "UNKNOWN"
        elif isinstance(error, Exception):
            failed = _failure(error, self._method)
            code = failed.code.name
        self._record(code, failed)
        if failed is not None:
            await self._context.abort(failed.code, failed.message, to_trailers(failed))
        return lifetime_over

    def _record(self, code: str, failed: MeshError | None) -> None:
        """Record a call that has ended: metrics, span, log line."""
        method, span = self._method, self._span
        seconds = time.perf_counter() - self._started
        reason = "" if failed is None else failed.contract.name
        current = call.current()
        caller = "none" if current is None else current.caller.name
        kind = telemetry.kind_of(code, seconds, method.objective.latency)
        exemplar = None if span is None else telemetry.exemplar(always=kind != names.KIND_ACCESS)
        _seconds_of(method.service, method.name, code, reason).observe(seconds, exemplar)
        if not method.stays_open or current is None:
            _calls_of(method.service, method.name, caller).inc()
        if isinstance(failed, PermissionDeniedError | UnauthenticatedError):
            telemetry.REFUSALS.labels(method.service, method.name, reason).inc()
        if telemetry.is_logged(kind, span, behind_proxy=self._pipeline.behind_proxy):
            _log(method, code, failed, kind=kind, seconds=seconds)
        if span is not None or kind in {names.KIND_ERROR, names.KIND_SLOW}:
            _trace(method, code, failed, seconds=seconds, span=span)


def _begin(context: Context) -> bool:
    """Continue the caller's trace; return whether the call becomes a span."""
    received: Any = context.invocation_metadata()
    metadata.set(received or ())
    return rpc.enter(metadata.get())


# Looking up the labels of a metric costs more than counting.
_seconds_of = functools.cache(telemetry.RPC_SECONDS.labels)
_calls_of = functools.cache(telemetry.RPC_CALLS.labels)


def _failure(error: Exception, method: Method) -> MeshError:
    """Return the error that the caller of *method* gets for *error*."""
    if isinstance(error, MeshError):
        return _for_the_caller(error)
    if isinstance(error, grpc.aio.AioRpcError):
        return _for_the_caller(from_rpc_error(error))
    if isinstance(error, TimeoutError):
        return DeadlineExceededError(CALL_MESSAGES["DEADLINE_EXCEEDED"])
    log.error("handler failed", rpc=method.short_name, exc_info=error)
    return MeshError("An unexpected error occurred; see the log for details.")


def _log(method: Method, code: str, failed: MeshError | None, *, kind: str, seconds: float) -> None:
    facts: dict[str, Any] = {"code": code, "duration_ms": round(seconds * 1000, 2), "kind": kind}
    if isinstance(failed, PermissionDeniedError | UnauthenticatedError):
        facts["policy"] = method.source
    if failed is not None:
        reason = failed.contract.name
        facts |= {"reason": reason, "message": failed.message, **failed.metadata}
    log.info("call", rpc=method.short_name, **facts)


def _trace(
    method: Method, code: str, failed: MeshError | None, *, seconds: float, span: Span | None
) -> None:
    facts = {names.RPC_METHOD: names.span_of(method.path), names.RPC_STATUS: code}
    current = call.current()
    if current is not None:
        facts[names.CALLER] = current.caller.name
        if current.user is not None:
            facts[names.USER] = telemetry.pseudonym(current.user.id)
    if code in names.SECURITY_CODES:
        facts[names.POLICY] = method.source
        if current is not None:
            facts[names.CALLER_ID] = str(current.caller)
        elif failed is not None and "caller" in failed.metadata:
            facts[names.CALLER_ID] = failed.metadata["caller"]
    error = failed.contract.name if failed is not None and code in names.FAULT_CODES else ""
    if span is not None:
        tracing.mark(span, facts, error=error)
    else:
        tracing.record_late(
            names.span_of(method.path), {**_SPAN_FACTS, **facts}, seconds=seconds, error=error
        )


def _for_the_caller(error: MeshError) -> MeshError:
    """Convert a failure behind this service for its own caller.

    Unavailability of another service is passed on; its other errors are our fault.
    """
    if isinstance(error, RemoteError):
        if error.contract.name in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "UPSTREAM_ERROR"}:
            return error
        log.error("upstream call rejected", reason=error.contract.name, message=error.message)
        return MeshError("Another service rejected a request of this one.")
    return error
