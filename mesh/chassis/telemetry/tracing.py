"""The trace that a task is part of, in OpenTelemetry's own context.

A sampled trace gets spans as it proceeds. For all others, the context is only propagated, and
errors and slow calls get a single span afterwards, so that they can always be found.
`mesh.chassis.telemetry.rpc` creates the spans of RPCs; the functions here create all others.
"""

import logging
import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
)

from mesh.chassis.otel_environment import OtelVariableError, sampling_share
from mesh.chassis.telemetry import names
from mesh.chassis.telemetry.allowance import Allowance

Attributes = Mapping[str, str | bool | int | float]
TRACEPARENT = "traceparent"
VERSION_0 = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
"""A valid ``traceparent`` of version 00: trace id, span id, flags."""
exemplars = Allowance(per_second=20, burst=100)
"""Rate limit of exemplars of ordinary calls."""

_tracer: Tracer | None = None
_roots: Tracer | None = None
_share = 1.0


def use(tracer: Tracer | None, roots: Tracer | None = None) -> None:
    """Create spans with *tracer*, and the first one of a trace with *roots*; None: create none.

    Whether a new trace is sampled is decided before its first span is created, since creating one
    only to ask the sampler costs more: *roots* records everything. Default: *tracer*.
    """
    global _tracer, _roots
    _tracer, _roots = tracer, roots or tracer


def used() -> Tracer | None:
    """Return the current tracer."""
    return _tracer


def resume(traceparent: str) -> None:
    """Make this task part of the trace of a W3C *traceparent*; of none if it is malformed."""
    otel_context.attach(context_of(traceparent))


def context_of(traceparent: str) -> Context:
    """Return the context of a W3C *traceparent*; an empty one if it is malformed.

    Every request passes here: `propagate.extract`, which gives the same, takes three times as long.
    """
    known = VERSION_0.fullmatch(traceparent)
    if known is None:
        return propagate.extract({TRACEPARENT: traceparent}, Context())
    trace_id, span_id, flags = (int(part, 16) for part in known.groups())
    parent = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def traceparent() -> str:
    """Return the W3C ``traceparent`` of the current span; empty outside a trace."""
    current = trace.get_current_span().get_span_context()
    return formatted(current) if current.is_valid else ""


def formatted(context: SpanContext) -> str:
    """Return *context* as a W3C ``traceparent``."""
    sampled = int(context.trace_flags.sampled)
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{sampled:02x}"


def sample(share: float) -> None:
    """Sample this share of new traces, 0 to 1."""
    global _share
    _share = share


def new_traceparent() -> str:
    """Return the context of a new trace, sampled with the probability set by `sample`."""
    return f"00-{new_id(128)}-{new_id(64)}-{_is_chosen():02x}"


def _is_chosen() -> bool:
    """Decide whether a new trace is sampled."""
    return _share >= 1 or random.random() < _share  # noqa: S311 - no secret


def new_id(bits: int) -> str:
    """Return a random id in hexadecimal: unique, but no secret, and without a system call."""
    return f"{random.getrandbits(bits):0{bits // 4}x}"


def is_sampled(traceparent: str) -> bool:
    """Whether a W3C ``traceparent`` is sampled; false for anything else."""
    # Only the last bit matters: version 1.45 of the SDK sends flags 03 and 02.
    try:
        return len(traceparent) >= 55 and bool(int(traceparent[53:55], 16) & 1)
    except ValueError:
        return False


def trace_id(traceparent: str) -> str:
    """Return the trace id of a W3C ``traceparent``; empty if it is malformed."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else ""


def share() -> float:
    """Return the share of new traces that is sampled."""
    return _share


def exemplar(*, always: bool = False) -> dict[str, str] | None:
    """Return the labels that link a measurement to the current trace.

    None if the trace is not sampled, or, unless it is *always* wanted, if `exemplars` are used up:
    a series keeps only the last one of each bucket, and to store one costs more than to count.
    """
    current = trace.get_current_span().get_span_context()
    if not current.trace_flags.sampled or not (always or exemplars.take()):
        return None
    return {"trace_id": f"{current.trace_id:032x}", "span_id": f"{current.span_id:016x}"}


def start_trace(name: str, kind: SpanKind, attributes: Attributes) -> Span:
    """Make this task part of a new trace; its first span records if the trace is sampled."""
    chosen = _is_chosen()
    if chosen and _roots is not None:
        root = _roots.start_span(name, Context(), kind, attributes)
    else:
        ids = random.getrandbits(128), random.getrandbits(64)
        root = NonRecordingSpan(SpanContext(*ids, is_remote=False, trace_flags=TraceFlags(chosen)))
    otel_context.attach(trace.set_span_in_context(root, Context()))
    return root


def start(name: str, kind: SpanKind, attributes: Attributes) -> Span | None:
    """Start a span below the current one.

    Returns:
        The span, to be made the current one with `enter`; None if the trace is not sampled.
    """
    if _tracer is None:
        return None
    if not trace.get_current_span().get_span_context().trace_flags.sampled:
        return None
    return _tracer.start_span(name, None, kind, attributes)


def enter(span: Span | None) -> None:
    """Make *span* the current one of this task until the task ends."""
    if span is not None:
        otel_context.attach(trace.set_span_in_context(span))


def end(span: Span | None, attributes: Attributes, *, error: str = "") -> None:
    """End *span*; *error* names a fault of the server, and is empty if there was none."""
    if span is None:
        return
    mark(span, attributes, error=error)
    span.end()


def mark(span: Span, attributes: Attributes, *, error: str = "") -> None:
    """Set *attributes* on *span*, and its status if there was an *error*."""
    span.set_attributes(attributes)
    if error:
        span.set_attribute(names.ERROR_TYPE, error)
        span.set_status(Status(StatusCode.ERROR))


def record_late(name: str, attributes: Attributes, *, seconds: float, error: str = "") -> None:
    """Create the single span of an unsampled call that failed or was slow."""
    current = trace.get_current_span().get_span_context()
    if _tracer is None or not current.is_valid:
        return
    sampled = SpanContext(
        current.trace_id, current.span_id, is_remote=True, trace_flags=TraceFlags(1)
    )
    span = _tracer.start_span(
        name,
        trace.set_span_in_context(NonRecordingSpan(sampled), Context()),
        SpanKind.SERVER,
        {names.LATE: True},
        start_time=time.time_ns() - int(seconds * 1e9),
    )
    end(span, attributes, error=error)


def peer(name: str, host: str, port: int | None) -> dict[str, str | bool | int | float]:
    """Return the attributes of a client span whose server is the system *name*."""
    facts = {names.PEER: name, names.PEER_NAME: name, names.SERVER_ADDRESS: host}
    return facts | ({names.SERVER_PORT: port} if port else {})


@contextmanager
def client(name: str, attributes: Attributes) -> Iterator[Span | None]:
    """Trace one use of a system outside this process; an exception marks the span."""
    span = start(name, SpanKind.CLIENT, attributes)
    token = otel_context.attach(trace.set_span_in_context(span)) if span else None
    error = ""
    try:
        yield span
    except BaseException as exc:
        error = type(exc).__name__
        raise
    finally:
        end(span, {}, error=error)
        if token is not None:
            otel_context.detach(token)


def default_share(env: str) -> float:
    """Return the share of new traces to sample; default: all, in production 5 %."""
    default = 0.05 if env == "production" else 1.0
    try:
        return sampling_share(os.environ, default)
    except OtelVariableError as error:
        logging.getLogger("telemetry").warning("%s Sampling %s of traces.", error, default)
        return default
