"""RPC spans from `opentelemetry-instrumentation-grpc`, with the additions of the mesh.

The instrumentation creates the spans of sampled calls and attaches the OpenTelemetry context. For
all others, the context is only extracted or injected. `mesh.chassis.telemetry.conventions`
translates the spans.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import grpc
from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.instrumentation.grpc import aio_client_interceptors, aio_server_interceptor

from mesh.chassis.telemetry import tracing
from mesh.chassis.telemetry.metrics import RPC_CLIENT_SECONDS
from mesh.contract.model import Method

# Looking up the labels of a metric costs more than counting.
_duration_of = functools.cache(RPC_CLIENT_SECONDS.labels)
_CARRIED = frozenset({"tracestate", "baggage"})
"""Headers that belong to the context, too."""


class _Details(NamedTuple):
    """What the instrumentation reads of a call's details."""

    method: str


def traced(path: str, handler: Any) -> Any:
    """Return *handler* of the method at *path*, within a span of the instrumentation."""

    async def found(_details: _Details) -> Any:
        return handler

    interceptor: Any = aio_server_interceptor()  # type: ignore[no-untyped-call]
    wrapping = interceptor.intercept_service(found, _Details(path))
    try:
        wrapping.send(None)  # It waits for nothing.
    except StopIteration as done:
        return done.value
    raise RuntimeError("The instrumentation of gRPC waits while it wraps a handler.")


def enter(metadata: Iterable[tuple[str, Any]]) -> bool:
    """Whether a call with *metadata* becomes a span; if not, continue its trace without one."""
    traceparent, carries_more = "", False
    for key, value in metadata:
        if key == tracing.TRACEPARENT and isinstance(value, str):
            traceparent = value
        elif key in _CARRIED:
            carries_more = True
    if tracing.used() is not None and tracing.is_sampled(traceparent):
        return True
    if carries_more:
        otel_context.attach(propagate.extract(dict(metadata), otel_context.Context()))
    else:
        tracing.resume(traceparent)
    return False


class ChannelTelemetry:
    """Spans, propagation and metrics of outgoing calls, for `mesh.chassis.channel`."""

    def interceptors(self) -> Sequence[grpc.aio.ClientInterceptor]:
        """Return the interceptors of the instrumentation."""
        interceptors: Sequence[grpc.aio.ClientInterceptor] = aio_client_interceptors()  # type: ignore[no-untyped-call]
        return interceptors

    def continue_trace(self, metadata: list[tuple[str, str | bytes]]) -> bool:
        """Return whether a call made now becomes a span; if not, propagate the trace context."""
        current = trace.get_current_span().get_span_context()
        if current.trace_flags.sampled and tracing.used() is not None:
            return True
        if current.is_valid:
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            metadata += [(key.lower(), value) for key, value in carrier.items()]
        return False

    def ended(self, method: Method, code: str, seconds: float) -> None:
        """Observe the duration of a call."""
        _duration_of(method.service, method.name, code).observe(seconds, tracing.exemplar())
