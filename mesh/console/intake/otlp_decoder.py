"""
OTLP messages to rows.

Nothing that a client sends can break this: what makes no sense is counted and left out, what is
too large is cut, what must not be stored is removed.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mesh.console import naming
from mesh.console.clock import Now
from mesh.console.intake import redaction
from mesh.console.store.intake_counters import IntakeCounters
from mesh.console.store.rows import Log, Point, Span

FUTURE = timedelta(days=1)
MOST_SERVICES = 64
OTHER_SERVICES = "(others)"
MOST_ATTRIBUTES = 96
MOST_CHARACTERS = 2048
MOST_TEXT = 16_384
MOST_EVENTS = 32
MOST_DEPTH = 4
_KEPT_BODY = 8192
_KEPT_OF_RESOURCE = frozenset(
    {"service.version", "host.name", "process.pid", "deployment.environment.name"}
)


@dataclass
class Decoder:
    """Turns requests into rows; *oldest* is how far back they may reach."""

    now: Now
    intake: IntakeCounters
    oldest: timedelta
    _services: set[str] = field(default_factory=set)

    def spans(self, request: Any) -> Iterator[Span]:
        """Yield the spans of an ExportTraceServiceRequest."""
        for part in request.resource_spans:
            service, instance, resource = self._resource(part.resource, "traces")
            for scope in part.scope_spans:
                yield from self._spans(scope.spans, service, instance, resource)

    def _spans(
        self, spans: Iterable[Any], service: str, instance: str, resource: dict[str, Any]
    ) -> Iterator[Span]:
        earliest, latest = self._window()
        for span in spans:
            if len(span.trace_id) != 16 or len(span.span_id) != 8:
                self.intake.drop("traces", "no_ids", service=service)
                continue
            start = span.start_time_unix_nano // 1000
            if not earliest <= start <= latest:
                reason = "too_old" if start < earliest else "in_future"
                self.intake.drop("traces", reason, service=service)
                continue
            attributes = self._attributes(span.attributes, "traces", service)
            name = span.name[:200]
            rpc = naming.rpc(attributes, name)
            code = naming.code(attributes)
            end = min(span.end_time_unix_nano // 1000, latest)
            yield Span(
                trace_id=span.trace_id,
                span_id=span.span_id,
                parent_id=span.parent_span_id,
                service=service,
                instance=instance,
                name=redaction.clean(name),
                rpc=rpc,
                kind=span.kind,
                proxy=int(naming.is_proxy(service, attributes)),
                start=start,
                duration=max(0, end - start),
                error=int(_failed(span.status.code, code)),
                code=code,
                message=redaction.clean(span.status.message[:500]),
                probe=int(naming.is_probe(attributes, rpc, name)),
                peer=naming.peer(span.kind, attributes, name),
                attributes=_json(attributes | resource),
                events=self._events(span.events, service) if span.events else "",
            )

    def _events(self, events: Iterable[Any], service: str) -> str:
        kept = list(events)
        if len(kept) > MOST_EVENTS:
            self.intake.drop("traces", "attributes_cut", service=service)
        return _json(
            [
                {
                    "name": event.name[:200],
                    "at": event.time_unix_nano // 1000,
                    "attributes": self._attributes(event.attributes, "traces", service),
                }
                for event in kept[:MOST_EVENTS]
            ]
        )

    def logs(self, request: Any) -> Iterator[Log]:
        """Yield the records of an ExportLogsServiceRequest."""
        earliest, latest = self._window()
        for part in request.resource_logs:
            service, instance, _ = self._resource(part.resource, "logs")
            for scope in part.scope_logs:
                for record in scope.log_records:
                    at = (record.time_unix_nano or record.observed_time_unix_nano) // 1000
                    if not earliest <= at <= latest:
                        reason = "too_old" if at < earliest else "in_future"
                        self.intake.drop("logs", reason, service=service)
                        continue
                    body = _value(record.body, MOST_DEPTH)
                    text = body if isinstance(body, str) else _json(body)
                    if len(text) > _KEPT_BODY:
                        self.intake.drop("logs", "attributes_cut", service=service)
                    attributes = self._attributes(record.attributes, "logs", service)
                    yield Log(
                        at=at,
                        service=service,
                        instance=instance,
                        level=min(max(record.severity_number, 0), 24),
                        trace_id=record.trace_id if len(record.trace_id) == 16 else b"",
                        span_id=record.span_id if len(record.span_id) == 8 else b"",
                        body=redaction.clean(text[:_KEPT_BODY]),
                        attributes=_json(attributes),
                    )

    def points(self, request: Any) -> Iterator[Point]:
        """Yield the points of an ExportMetricsServiceRequest; exponential histograms as sums."""
        earliest, latest = self._window()
        for part in request.resource_metrics:
            service, instance, _ = self._resource(part.resource, "metrics")
            for scope in part.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    for point in getattr(metric, kind).data_points if kind else ():
                        at = point.time_unix_nano // 1000
                        if earliest <= at <= latest:
                            attributes = self._attributes(point.attributes, "metrics", service)
                            value, total, buckets = _measured(kind, point)
                            yield Point(
                                process=instance or service,
                                name=metric.name[:200],
                                labels=_json(attributes, sort=True),
                                at=at,
                                value=value,
                                total=total,
                                buckets=buckets,
                            )
                        else:
                            reason = "too_old" if at < earliest else "in_future"
                            self.intake.drop("metrics", reason, service=service)

    def _window(self) -> tuple[int, int]:
        now = self.now()
        return (
            now - int(self.oldest.total_seconds() * 1e6),
            now + int(FUTURE.total_seconds() * 1e6),
        )

    def _resource(self, resource: Any, signal: str) -> tuple[str, str, dict[str, Any]]:
        attributes = self._attributes(resource.attributes, signal, "")
        service = str(attributes.get("service.name") or "unknown")[:64]
        if service not in self._services:
            if len(self._services) >= MOST_SERVICES:
                self.intake.drop(signal, "too_many_names", service=OTHER_SERVICES)
                service = OTHER_SERVICES
            self._services.add(service)
        instance = str(attributes.get("service.instance.id") or "")[:64]
        kept = {k: v for k, v in attributes.items() if k in _KEPT_OF_RESOURCE}
        return service, instance, kept

    def _attributes(self, pairs: Iterable[Any], signal: str, service: str) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        room, cut = MOST_TEXT, False
        for pair in pairs:
            key = pair.key
            if redaction.is_forbidden(key):
                kept[key[:200]] = redaction.REDACTED
                self.intake.drop(signal, "redacted", service=service)
                continue
            value = _value(pair.value, MOST_DEPTH)
            if isinstance(value, str):
                if len(value) > MOST_CHARACTERS:
                    value, cut = f"{value[:MOST_CHARACTERS]}… ({len(value)} characters)", True
                value = redaction.clean(value)
                room -= len(value)
            elif isinstance(value, list | dict):
                text = _json(value)
                room -= len(text)
                if len(text) > MOST_CHARACTERS:
                    value, cut = f"{text[:MOST_CHARACTERS]}… ({len(text)} characters)", True
            room -= len(key)
            if room < 0 or len(kept) >= MOST_ATTRIBUTES:
                cut = True
                break
            kept[key[:200]] = value
        if cut:
            self.intake.drop(signal, "attributes_cut", service=service)
        return kept


def _failed(status: int, code: str) -> bool:
    return naming.is_failure(code) or (status == 2 and code not in naming.CALLERS_FAULT)


def _value(value: Any, depth: int) -> Any:
    """Return an AnyValue as JSON can hold it; what nests deeper than *depth* is cut."""
    kind = value.WhichOneof("value")
    match kind:
        case None:
            return None
        case "string_value":
            return value.string_value
        case "int_value" | "bool_value":
            return getattr(value, kind)
        case "double_value":
            number = value.double_value
            return number if abs(number) < 1e300 else str(number)
        case "bytes_value":
            return value.bytes_value[:MOST_CHARACTERS].hex()
        case _ if depth == 0:
            return "…"
        case "array_value":
            inner = (_value(one, depth - 1) for one in value.array_value.values[:MOST_ATTRIBUTES])
            return [redaction.clean(one) if isinstance(one, str) else one for one in inner]
        case _:
            return {
                pair.key[:200]: redaction.REDACTED
                if redaction.is_forbidden(pair.key)
                else _clean(_value(pair.value, depth - 1))
                for pair in value.kvlist_value.values[:MOST_ATTRIBUTES]
            }


def _clean(value: Any) -> Any:
    return redaction.clean(value) if isinstance(value, str) else value


def _measured(kind: str | None, point: Any) -> tuple[float, float, str]:
    if kind == "histogram":
        bounds = [*(f"{bound:g}" for bound in point.explicit_bounds), "+Inf"]
        buckets = dict(zip(bounds, point.bucket_counts, strict=False))
        return float(point.count), point.sum, _json(buckets)
    if kind in {"exponential_histogram", "summary"}:
        return float(point.count), point.sum, ""
    which = point.WhichOneof("value")
    return (float(getattr(point, which)) if which else 0.0), 0.0, ""


def _json(value: object, *, sort: bool = False) -> str:
    """Return compact JSON; searches rely on its exact form."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=sort)


REQUESTS: Mapping[str, Any] = {
    "traces": ExportTraceServiceRequest,
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}
"""The request message of each signal."""
