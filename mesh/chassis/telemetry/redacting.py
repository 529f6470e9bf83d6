"""Redaction of spans, by the rule for all telemetry.

Imported only if spans are exported: this module needs the OpenTelemetry SDK.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Status

from mesh.contract import redaction


class RedactingExporter(SpanExporter):
    """Redacts spans, then passes them to *following*: on the exporter's thread, not the call's."""

    def __init__(self, following: SpanExporter) -> None:
        self._following = following

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export *spans*, redacted."""
        return self._following.export([redacted(span) for span in spans])

    def shutdown(self) -> None:
        """Shut down the following exporter."""
        self._following.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the following exporter."""
        return self._following.force_flush(timeout_millis)


def redacted(span: ReadableSpan) -> ReadableSpan:
    """Return a copy of *span* with its name, status, attributes, events and links redacted."""
    status = span.status
    return ReadableSpan(
        name=redaction.clean(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_attributes(span.attributes),
        events=[
            Event(redaction.clean(each.name), _attributes(each.attributes), each.timestamp)
            for each in span.events
        ],
        links=[Link(each.context, _attributes(each.attributes)) for each in span.links],
        kind=span.kind,
        status=Status(status.status_code, redaction.clean(status.description))
        if status.description
        else status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _attributes(found: Mapping[str, Any] | None) -> Any:
    return redaction.value("", redaction.plain(found or {}))
