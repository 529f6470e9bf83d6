"""Current semantic conventions for the spans of `opentelemetry-instrumentation-grpc`.

Imported only if spans are exported: this module needs the OpenTelemetry SDK.
"""

from typing import Any, cast

import grpc
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

from mesh.chassis.telemetry import names

_SCOPE = "opentelemetry.instrumentation.grpc"
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_STATUS = "rpc.grpc.status_code"
_OLD = ("rpc.system", "rpc.service", _STATUS, "rpc.user_agent", "net.peer")
"""Attributes of the instrumentation that the conventions have replaced or that are not used."""


class Conventions(SpanProcessor):
    """Translates RPC spans to the current semantic conventions, then passes them to *following*.

    Source:
        OpenTelemetry, semantic conventions for gRPC (``rpc.system.name``, ``rpc.method``,
        ``rpc.response.status_code``). Status codes that are the caller's fault do not mark a
        span as an error, on either side.
    """

    def __init__(self, following: SpanProcessor) -> None:
        self._following = following

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Pass the span on."""
        self._following.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Pass the span on, translated if the instrumentation of gRPC created it."""
        scope = span.instrumentation_scope
        is_rpc = scope is not None and scope.name == _SCOPE
        self._following.on_end(_translated(span) if is_rpc else span)

    def shutdown(self) -> None:
        """Shut down the following processor."""
        self._following.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the following processor."""
        return self._following.force_flush(timeout_millis)


def _translated(span: ReadableSpan) -> ReadableSpan:
    found = dict(span.attributes or {})
    name = span.name.removeprefix("/")
    facts = {key: value for key, value in found.items() if not key.startswith(_OLD)}
    facts[names.RPC_SYSTEM] = "grpc"
    facts[names.RPC_METHOD] = name
    facts.setdefault(names.RPC_STATUS, _CODES.get(cast(int, found.get(_STATUS)), "UNKNOWN"))
    code = facts[names.RPC_STATUS]
    status = Status(StatusCode.UNSET)
    if code in names.FAULT_CODES:
        status = Status(StatusCode.ERROR)
        if span.kind is SpanKind.CLIENT:
            facts[names.ERROR_TYPE] = code
    return ReadableSpan(
        name=name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=facts,
        # Every status other than OK is raised as an exception within the server.
        events=[event for event in span.events if not _is_abort(event.attributes)],
        links=span.links,
        kind=span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _is_abort(attributes: Any) -> bool:
    return str((attributes or {}).get("exception.type", "")).startswith("grpc.")
