"""Per-request telemetry: a span, a latency measurement and an access log line."""

import functools
import time
from datetime import timedelta

import structlog
from opentelemetry.trace import Span, SpanKind
from prometheus_client import Gauge, Histogram
from starlette.types import Scope

from mesh.chassis import telemetry
from mesh.chassis.telemetry import names, tracing
from mesh.contract.policy import Method
from mesh.contract.wire import HEALTH_PATH

log = structlog.get_logger("access")

HTTP_SECONDS = Histogram(
    names.HTTP_SERVER_DURATION,
    "Duration of requests at the gateway by route.",
    ["method", "route", "status"],
    buckets=telemetry.LATENCY_BUCKETS,
)
duration_of = functools.cache(HTTP_SECONDS.labels)
"""Finds the series of a method, route and status; looking it up costs more than counting."""
_in_flight = 0
HTTP_IN_FLIGHT = Gauge(names.HTTP_SERVER_IN_FLIGHT, "Requests in flight, including streams.")
HTTP_IN_FLIGHT.set_function(lambda: _in_flight)
VERBS = frozenset({"GET", "HEAD", "POST"})
_SECURITY = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED"}
_RECORDED_LATE = frozenset({names.KIND_ERROR, names.KIND_SLOW})
_METHOD = "amarre.method"
REQUEST_ID = "amarre.request_id"
"""Key of the request id in the scope of a request."""
_PAGE_OBJECTIVE = timedelta(seconds=1)


def set_method(scope: Scope, method: Method) -> None:
    """Record the rpc that serves the request of *scope*; its latency objective applies."""
    scope[_METHOD] = method


def _count(more: int) -> None:
    global _in_flight
    _in_flight += more


def _begin(verb: str, path: str, traceparent: str) -> tuple[Span | None, str]:
    """Continue the trace of *traceparent*, or begin a new one unless that is valid.

    Returns:
        The span of the request, None if it is not traced, and the value of ``traceresponse``.

    Source:
        W3C Trace Context, section 3.2.
    """
    known = tracing.VERSION_0.fullmatch(traceparent)
    if path == HEALTH_PATH:
        traceparent = traceparent if known else tracing.new_traceparent()
        tracing.resume(traceparent)
        return None, traceparent
    attributes = {names.HTTP_METHOD: verb}
    if known:
        tracing.resume(traceparent)
        span = tracing.start(verb, SpanKind.SERVER, attributes)
        if span is None:
            return None, traceparent
        tracing.enter(span)
    else:
        span = tracing.start_trace(verb, SpanKind.SERVER, attributes)
    return span if span.is_recording() else None, tracing.formatted(span.get_span_context())


class RequestTelemetry:
    """Telemetry of one request."""

    def __init__(self, scope: Scope, traceparent: str, *, behind_envoy: bool) -> None:
        """Start; a valid *traceparent* is continued."""
        self._scope = scope
        self._behind_envoy = behind_envoy
        self._started = time.perf_counter()
        self._verb = scope["method"] if scope["method"] in VERBS else "other"
        self._span, self.traceresponse = _begin(self._verb, scope["path"], traceparent)
        _count(1)

    def end(self, status: int) -> None:
        """Record the end of the request; *status* is 0 when the client disconnected first."""
        _count(-1)
        seconds = time.perf_counter() - self._started
        # Unknown paths share one label value, since clients choose them.
        route = getattr(self._scope.get("route"), "path", "other")
        kind = self._kind(status, seconds)
        is_unusual = kind != names.KIND_ACCESS
        exemplar = None if self._span is None else telemetry.exemplar(always=is_unusual)
        duration_of(self._verb, route, status).observe(seconds, exemplar)
        if telemetry.is_logged(kind, self._span, behind_proxy=self._behind_envoy):
            duration_ms = round(seconds * 1000, 2)
            log.info(
                "request",
                method=self._verb,
                route=route,
                kind=kind,
                status=status,
                duration_ms=duration_ms,
            )
        if self._span is None and kind not in _RECORDED_LATE:
            return
        name = f"{self._verb} {route}"
        path = {names.HTTP_ROUTE: route, names.URL_TEMPLATE: route}
        attributes = {**path, names.HTTP_STATUS: status}
        error = str(status) if status >= 500 else ""
        if self._span is not None:
            self._span.update_name(name)
            tracing.end(self._span, attributes, error=error)
        else:
            attributes[names.HTTP_METHOD] = self._verb
            tracing.record_late(name, attributes, seconds=seconds, error=error)

    def _kind(self, status: int, seconds: float) -> str:
        code = "INTERNAL" if status >= 500 else _SECURITY.get(status, "OK")
        method: Method | None = self._scope.get(_METHOD)
        objective = method.objective.latency if method else _PAGE_OBJECTIVE
        return telemetry.kind_of(code, seconds, objective)
