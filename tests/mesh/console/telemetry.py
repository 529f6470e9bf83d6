"""OTLP requests for tests, in the form that processes send."""

import os
import time
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SERVER, CLIENT = 2, 3
LIST = "amarre.survey.v1.SurveyService/ListRequests"
CREATE = "amarre.survey.v1.SurveyService/CreateRequest"


def now() -> int:
    """Return the time in nanoseconds, as in OTLP."""
    return time.time_ns()


class Batch:
    """A request that collects spans of several services."""

    def __init__(self) -> None:
        self.request = ExportTraceServiceRequest()
        self._spans: dict[str, Any] = {}

    def span(
        self,
        service: str,
        name: str,
        *,
        trace: bytes = b"",
        parent: bytes = b"",
        kind: int = SERVER,
        start: int = 0,
        ms: float = 10,
        error: bool = False,
        **attributes: Any,
    ) -> Any:
        """Add a span; attribute names use ``__`` for dots."""
        if service not in self._spans:
            resource = self.request.resource_spans.add()
            _set(resource.resource.attributes, {"service.name": service})
            self._spans[service] = resource.scope_spans.add().spans
        begin = start or now()
        span = self._spans[service].add(
            trace_id=trace or os.urandom(16),
            span_id=os.urandom(8),
            parent_span_id=parent,
            name=name,
            kind=kind,
            start_time_unix_nano=begin,
            end_time_unix_nano=begin + int(ms * 1e6),
        )
        if error:
            span.status.code = 2
        _set(span.attributes, {key.replace("__", "."): v for key, v in attributes.items()})
        return span

    def rpc(self, service: str, method: str = LIST, code: str = "OK", **facts: Any) -> Any:
        """Add the server span of a call."""
        return self.span(
            service, method, rpc__method=method, rpc__response__status_code=code, **facts
        )

    def call(self, trace: bytes = b"", *, proxies: bool = False, code: str = "OK") -> bytes:
        """Add a whole call from browser to REDCap; return its trace id."""
        trace = trace or os.urandom(16)
        front = self.span("gateway", "GET /api/v1/surveys/requests", trace=trace, ms=50)
        parent = self.span(
            "gateway",
            LIST,
            trace=trace,
            parent=front.span_id,
            kind=CLIENT,
            ms=40,
            rpc__method=LIST,
            rpc__response__status_code=code,
        ).span_id
        for proxy, kind in (("gateway-envoy", CLIENT), ("survey-envoy", SERVER)):
            if proxies:
                parent = self.span(
                    proxy, "egress", trace=trace, parent=parent, kind=kind, ms=35, component="proxy"
                ).span_id
        server = self.rpc("survey", code=code, trace=trace, parent=parent, ms=30)
        self.span(
            "survey",
            "POST redcap",
            trace=trace,
            parent=server.span_id,
            kind=CLIENT,
            ms=20,
            http__request__method="POST",
        )
        return trace


def logs(service: str, *bodies: str, level: int = 9, **facts: Any) -> ExportLogsServiceRequest:
    """Return a request with one record per body; *facts* are ``trace``, ``at`` or attributes."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    _set(resource.resource.attributes, {"service.name": service})
    scope = resource.scope_logs.add()
    trace, at = facts.pop("trace", b""), facts.pop("at", 0)
    for body in bodies:
        record = scope.log_records.add(
            time_unix_nano=at or now(), severity_number=level, trace_id=trace
        )
        record.body.string_value = body
        _set(record.attributes, facts)
    return request


def _set(pairs: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        into = pairs.add(key=key).value
        match value:
            case bool():
                into.bool_value = value
            case int():
                into.int_value = value
            case float():
                into.double_value = value
            case _:
                into.string_value = str(value)
