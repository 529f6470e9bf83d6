"""
Spans for sampled calls; for the rest the trace context is passed on and that is all.

``call.traceparent`` says where this task is in its trace. Errors and slow calls that were not
sampled get one span afterwards, so that they can always be found.
"""

import os
import random
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags, Tracer

from mesh.chassis import call
from mesh.chassis.telemetry import names

Attributes = Mapping[str, str | bool | int | float]

_tracer: Tracer | None = None
_share = 1.0


def use(tracer: Tracer | None) -> None:
    """Make spans with *tracer* from now on; None makes none."""
    global _tracer
    _tracer = tracer


def used() -> Tracer | None:
    """Return what makes spans now."""
    return _tracer


def sample(share: float) -> None:
    """Begin this share of new traces sampled, 0 to 1."""
    global _share
    _share = share


def share_from(environment: Mapping[str, str], default: float) -> float:
    """
    Return which share of new traces ``OTEL_TRACES_SAMPLER`` and its argument ask for.

    Source:
        OpenTelemetry, general SDK configuration.
    """
    sampler = environment.get("OTEL_TRACES_SAMPLER", "").removeprefix("parentbased_")
    if sampler in {"always_on", "always_off"}:
        return float(sampler == "always_on")
    try:
        share = float(environment.get("OTEL_TRACES_SAMPLER_ARG", default))
    except ValueError:
        return default
    return share if 0 <= share <= 1 else default


def new_traceparent() -> str:
    """Return the beginning of a new trace, sampled or not as was decided for this process."""
    flags = "01" if _share >= 1 or random.random() < _share else "00"  # noqa: S311 - no secret
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{flags}"


def is_sampled(traceparent: str) -> bool:
    """Say whether a W3C ``traceparent`` is sampled; false for anything else."""
    # The last bit alone: version 1.45 of the SDK sends flags 03 and 02.
    try:
        return len(traceparent) >= 55 and bool(int(traceparent[53:55], 16) & 1)
    except ValueError:
        return False


def trace_id(traceparent: str) -> str:
    """Return the trace id of a W3C ``traceparent``; empty when it is none."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else ""


def exemplar(context: str | None = None) -> dict[str, str] | None:
    """
    Return what ties a measured value to a trace; None when that is not sampled.

    The trace is that of *context*, a traceparent, or else of this task.
    """
    if context is None:
        context = call.traceparent.get()
    return {"trace_id": trace_id(context)} if is_sampled(context) else None


def start(name: str, kind: SpanKind, attributes: Attributes, *, first: bool = False) -> Span | None:
    """
    Begin a span below where this task is, or as the *first* of a trace of its own, to be entered;
    None when the task's trace is not sampled.
    """
    context = call.traceparent.get()
    if _tracer is None or not is_sampled(context):
        return None
    parent = Context() if first else _parent(context)
    return None if parent is None else _tracer.start_span(name, parent, kind, attributes)


def enter(span: Span | None) -> None:
    """Make what this task does from now on part of *span*."""
    if span is not None:
        call.traceparent.set(traceparent_of(span))


def traceparent_of(span: Span) -> str:
    """Return the trace context to pass on from within *span*."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"


def end(span: Span | None, attributes: Attributes, *, error: str = "") -> None:
    """End *span*; *error* is what the server is to blame for, empty when nothing."""
    if span is None:
        return
    span.set_attributes(attributes)
    if error:
        span.set_attribute(names.ERROR_TYPE, error)
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def tell_late(name: str, attributes: Attributes, *, seconds: float, error: str = "") -> None:
    """Make the one span of an unsampled call that turned out to be worth keeping."""
    parent = _parent(call.traceparent.get())
    if _tracer is None or parent is None:
        return
    now = time.time_ns()
    span = _tracer.start_span(
        name, parent, SpanKind.SERVER, {names.LATE: True}, start_time=now - int(seconds * 1e9)
    )
    end(span, attributes, error=error)


@contextmanager
def client(name: str, attributes: Attributes) -> Iterator[Span | None]:
    """Wrap one use of something outside of this process; an exception marks the span."""
    span = start(name, SpanKind.CLIENT, attributes)
    error = ""
    try:
        yield span
    except BaseException as exc:
        error = type(exc).__name__
        raise
    finally:
        end(span, {}, error=error)


def _parent(traceparent: str) -> Context | None:
    """Return the trace context as the SDK wants it, sampled; None when it is malformed."""
    try:
        context = SpanContext(
            trace_id=int(traceparent[3:35], 16),
            span_id=int(traceparent[36:52], 16),
            is_remote=True,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
        )
    except ValueError:
        return None
    return trace.set_span_in_context(trace.NonRecordingSpan(context)) if context.is_valid else None


def current_context() -> Context:
    """Return where this task is in its trace, as the SDK wants it; empty outside of one."""
    return _parent(call.traceparent.get()) or Context()


def default_share(env: str) -> float:
    """Return the share of new traces to sample: all of them, in production 5 in 100."""
    return share_from(os.environ, 0.05 if env == "production" else 1.0)
