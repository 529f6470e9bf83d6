"""RPC spans from `opentelemetry-instrumentation-grpc`, with the additions of the mesh.

The instrumentation's interceptors create the spans of sampled calls and attach the OpenTelemetry
context. Their filters skip unsampled calls and health checks: for those, the context is only
extracted or injected. `mesh.chassis.telemetry.conventions` translates the spans.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import grpc
from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.instrumentation.grpc import aio_client_interceptors, aio_server_interceptor
from opentelemetry.trace import Span

from mesh.chassis.telemetry import tracing
from mesh.chassis.telemetry.metrics import RPC_CLIENT_SECONDS
from mesh.contract.model import Method

HEALTH = "/grpc.health."
# Looking up the labels of a metric costs more than counting.
_duration_of = functools.cache(RPC_CLIENT_SECONDS.labels)


def server_interceptor() -> grpc.aio.ServerInterceptor:
    """Return the interceptor that creates the span of a call, for calls that are traced."""
    interceptor: grpc.aio.ServerInterceptor = aio_server_interceptor()  # type: ignore[no-untyped-call]
    return interceptor


def is_traced(details: grpc.HandlerCallDetails) -> bool:
    """Whether a call becomes a span: it is sampled and not a health check."""
    return (
        tracing.used() is not None
        and tracing.is_sampled(traceparent_in(details.invocation_metadata))
        and not details.method.startswith(HEALTH)
    )


def traceparent_in(metadata: Iterable[tuple[str, Any]] | None) -> str:
    """Return the ``traceparent`` header of *metadata*; empty if absent."""
    for key, value in metadata or ():
        if key == tracing.TRACEPARENT and isinstance(value, str):
            return value
    return ""


def server_span(metadata: Iterable[tuple[str, Any]] | None) -> Span | None:
    """Return the span that the interceptor created for the call with *metadata*.

    For an unsampled call, return None and attach the propagated trace context.
    """
    if tracing.used() is not None and tracing.is_sampled(traceparent_in(metadata)):
        return trace.get_current_span()
    otel_context.attach(propagate.extract(dict(metadata or ()), otel_context.Context()))
    return None


class ChannelTelemetry:
    """Spans, propagation and metrics of outgoing calls, for `mesh.chassis.channel`."""

    def is_sampled(self) -> bool:
        """Whether a call made now becomes a span."""
        current = trace.get_current_span().get_span_context()
        return tracing.used() is not None and current.trace_flags.sampled

    def interceptors(self) -> Sequence[grpc.aio.ClientInterceptor]:
        """Return the interceptors of the instrumentation."""
        interceptors: Sequence[grpc.aio.ClientInterceptor] = aio_client_interceptors()  # type: ignore[no-untyped-call]
        return interceptors

    def inject(self, metadata: list[tuple[str, str | bytes]]) -> None:
        """Add the headers that propagate the current trace context."""
        if trace.get_current_span().get_span_context().is_valid:
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            metadata += [(key.lower(), value) for key, value in carrier.items()]

    def ended(self, method: Method, code: str, seconds: float) -> None:
        """Observe the duration of a call."""
        _duration_of(method.service, method.name, code).observe(seconds, tracing.exemplar())
