"""
Decodes OTLP messages to rows, item by item.

No input can fail the whole request: an invalid item is rejected on its own and counted, large
values are truncated, and credentials and personal data are redacted.

Source:
    OTLP specification 1.9 (Partial Success); OpenTelemetry protocol definitions 1.9.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from google.protobuf.message import DecodeError

from mesh.console import naming
from mesh.console.clock import Now
from mesh.console.intake import otlp_attributes, otlp_points, otlp_sender, series_labels
from mesh.console.intake.otlp_attributes import Attributes, to_json
from mesh.console.intake.otlp_sender import Sender, Services
from mesh.console.store.intake_counters import REASONS, IntakeCounters
from mesh.console.store.rows import Link, Log, Point, Row, Span
from mesh.contract import redaction

FUTURE = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)
OTHER_SERVICES = "(others)"
MAX_EVENTS = 32
MAX_LINKS = 32
_MAX_BODY = 8192
_NO_RECORDED_VALUE = 1
_KINDS = range(6)
_SEVERITIES = range(1, 25)
_STATUS_ERROR = 2
_KEPT_OF_RESOURCE = frozenset(
    {"service.version", "host.name", "process.pid", "deployment.environment.name"}
)
_SEVERITY_TEXTS = {
    **dict.fromkeys(("TRACE", "FINEST", "VERBOSE"), 1),
    **dict.fromkeys(("DEBUG", "FINE", "FINER"), 5),
    **dict.fromkeys(("INFO", "INFORMATION", "INFORMATIONAL", "NOTICE"), 9),
    **dict.fromkeys(("WARN", "WARNING"), 13),
    **dict.fromkeys(("ERROR", "ERR", "SEVERE"), 17),
    **dict.fromkeys(("FATAL", "CRITICAL", "CRIT", "ALERT", "EMERGENCY", "EMERG", "PANIC"), 21),
}

log = structlog.get_logger("otlp")


class RejectedError(Exception):
    """One item cannot be stored; its reason is one of `REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Decoded:
    """The rows of a request, and the number of rejected items by reason."""

    rows: list[Row] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)

    @property
    def message(self) -> str:
        """The partial-success message for the sender; empty if nothing was rejected."""
        return "; ".join(f"{count} {REASONS[why]}" for why, count in self.rejected.items())


Observe = Callable[[str, int], None]
"""Called with a process and the time of an item that it sent, in microseconds."""


@dataclass
class Decoder:
    """Decodes requests to rows; items older than *oldest* are rejected."""

    now: Now
    intake: IntakeCounters
    oldest: timedelta
    observe: Observe = lambda process, at: None
    _services: Services = field(default_factory=Services)
    _earliest: int = 0
    _latest: int = 0

    def decode(self, signal: str, request: Any, *, lost: int = 0) -> Decoded:
        """Decode a request of one of the three signals, of which *lost* items are left out."""
        now = self.now()
        self._earliest = now - self.oldest // _MICROSECOND
        self._latest = now + FUTURE // _MICROSECOND
        items = {"traces": self._spans, "logs": self._logs, "metrics": self._points}[signal]
        found = Decoded()
        if lost:
            found.rejected["unreadable"] += lost
            self.intake.drop(signal, "unreadable", count=lost)
        for service, decode in items(request):
            try:
                row = decode()
            except RejectedError as exc:
                self._reject(found, signal, service, exc.reason)
            except Exception:
                log.exception("item cannot be decoded", signal=signal, service=service)
                self._reject(found, signal, service, "unreadable")
            else:
                if row is not None:
                    found.rows.append(row)
        return found

    def _reject(self, found: Decoded, signal: str, service: str, reason: str) -> None:
        found.rejected[reason] += 1
        self.intake.drop(signal, reason, service=service)

    def _spans(self, request: Any) -> Iterator[tuple[str, Callable[[], Row | None]]]:
        for part in request.resource_spans:
            sender, resource = self._sender(part.resource, "traces")
            for scope in part.scope_spans:
                for span in scope.spans:
                    yield sender.service, partial(self._span, span, sender, resource)

    def _span(self, span: Any, sender: Sender, resource: Attributes) -> Span:
        service, instance, process = sender
        if not (_is_id(span.trace_id, 16) and _is_id(span.span_id, 8)):
            raise RejectedError("no_ids")
        start = span.start_time_unix_nano // 1000
        self._check_time(start)
        end = span.end_time_unix_nano // 1000
        if not start <= end <= self._latest:
            self.intake.drop("traces", "bad_time", service=service)
            end = start
        self.observe(process, end)
        kept = self._attributes(span.attributes, "traces", service)
        attributes = kept.values
        name = naming.span_name(redaction.cut(span.name, 200), attributes)
        rpc = naming.rpc(attributes, name)
        code = naming.code(attributes)
        kind = span.kind if span.kind in _KINDS else 0
        return Span(
            trace_id=span.trace_id,
            span_id=span.span_id,
            parent_id=span.parent_span_id
            if _is_id(span.parent_span_id, 8)
            else self._no_reference(span.parent_span_id, "traces", service),
            service=service,
            instance=instance,
            name=redaction.clean(name),
            rpc=redaction.clean(rpc),
            kind=kind,
            proxy=int(naming.is_proxy(service, attributes)),
            start=start,
            duration=end - start,
            error=int(_failed(span.status.code, code)),
            code=code,
            message=redaction.cut(span.status.message, 500),
            probe=int(naming.is_probe(attributes, rpc, name)),
            peer=redaction.clean(naming.peer(kind, attributes, name)),
            attributes=kept.to_json(resource),
            events=self._events(span.events, service, start) if span.events else "",
            links=tuple(self._links(span.links, service)) if span.links else (),
        )

    def _events(self, events: Iterable[Any], service: str, start: int) -> str:
        kept = list(events)
        if len(kept) > MAX_EVENTS:
            self.intake.drop("traces", "attributes_cut", service=service)
        return to_json(
            [
                {
                    "name": redaction.cut(event.name, 200),
                    "at": self._event_time(event.time_unix_nano // 1000, service, start),
                    "attributes": self._attributes(event.attributes, "traces", service).values,
                }
                for event in kept[:MAX_EVENTS]
            ]
        )

    def _event_time(self, at: int, service: str, start: int) -> int:
        """Return the time *at* of an event, or the *start* of its span if it is not possible."""
        if self._earliest <= at <= self._latest:
            return at
        self.intake.drop("traces", "bad_time", service=service)
        return start

    def _links(self, links: Any, service: str) -> Iterator[Link]:
        good = [one for one in links if _is_id(one.trace_id, 16) and _is_id(one.span_id, 8)]
        self.intake.drop("traces", "bad_ids", service=service, count=len(links) - len(good))
        if len(good) > MAX_LINKS:
            self.intake.drop("traces", "attributes_cut", service=service)
        for one in good[:MAX_LINKS]:
            attributes = self._attributes(one.attributes, "traces", service)
            yield Link(one.trace_id, one.span_id, attributes.to_json())

    def _no_reference(self, found: bytes, signal: str, service: str) -> bytes:
        """Return no id in place of an invalid one; an all-zero one equals an absent one."""
        if any(found):
            self.intake.drop(signal, "bad_ids", service=service)
        return b""

    def _logs(self, request: Any) -> Iterator[tuple[str, Callable[[], Row | None]]]:
        for part in request.resource_logs:
            sender, _ = self._sender(part.resource, "logs")
            for scope in part.scope_logs:
                for record in scope.log_records:
                    yield sender.service, partial(self._log, record, sender)

    def _log(self, record: Any, sender: Sender) -> Log:
        service, instance, process = sender
        recorded = record.time_unix_nano or record.observed_time_unix_nano
        # A record without a time happened no later than it was received.
        at = recorded // 1000 if recorded else self.now()
        self._check_time(at)
        if recorded:
            self.observe(process, at)
        attributes = self._attributes(record.attributes, "logs", service)
        text = _text(record, attributes.values)
        level = _severity(record.severity_number, record.severity_text)
        if not (text or attributes.values or level):
            raise RejectedError("empty")
        if len(text) > _MAX_BODY or not otlp_attributes.is_whole(record.body):
            self.intake.drop("logs", "attributes_cut", service=service)
        return Log(
            at=at,
            service=service,
            instance=instance,
            level=level,
            trace_id=record.trace_id
            if _is_id(record.trace_id, 16)
            else self._no_reference(record.trace_id, "logs", service),
            span_id=record.span_id
            if _is_id(record.span_id, 8)
            else self._no_reference(record.span_id, "logs", service),
            body=redaction.cut(text, _MAX_BODY),
            attributes=attributes.to_json(),
        )

    def _points(self, request: Any) -> Iterator[tuple[str, Callable[[], Row | None]]]:
        for part in request.resource_metrics:
            sender, _ = self._sender(part.resource, "metrics")
            for scope in part.scope_metrics:
                name = _name(scope.scope.name)
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data") or ""
                    for point in getattr(metric, kind).data_points if kind else ():
                        yield (
                            sender.service,
                            partial(self._point, metric, kind, point, name, sender),
                        )

    def _point(
        self, metric: Any, kind: str, point: Any, scope: str, sender: Sender
    ) -> Point | None:
        service = sender.service
        at = point.time_unix_nano // 1000
        self._check_time(at)
        if point.flags & _NO_RECORDED_VALUE:
            # The series ended: a gap, not a value and not an error.
            self.intake.drop("metrics", "no_recorded_value", service=service)
            return None
        if not metric.name:
            raise RejectedError("no_name")
        data = getattr(metric, kind)
        try:
            series_kind = otlp_points.series_kind(kind, data)
            found = otlp_points.measured(kind, data, point)
        except otlp_points.BadPointError as exc:
            raise RejectedError(str(exc)) from exc
        pairs = list(_bytes(point.attributes))
        attributes = self._attributes(pairs, "metrics", service)
        return Point(
            process=sender.process,
            name=_name(metric.name),
            labels=series_labels.of_point(pairs, attributes),
            at=at,
            value=found.value,
            total=found.total,
            buckets=found.buckets,
            kind=series_kind,
            unit=redaction.cut(metric.unit, 40),
            scope=scope,
            pushed=1,
            started=_started(point.start_time_unix_nano // 1000, at),
        )

    def _check_time(self, at: int) -> None:
        if at < self._earliest:
            raise RejectedError("too_old")
        if at > self._latest:
            raise RejectedError("in_future")

    def _sender(self, resource: Any, signal: str) -> tuple[Sender, Attributes]:
        """Return who sent a resource's items, and what is stored of the resource with each."""
        sender = otlp_sender.identify(
            self._attributes(_bytes(resource.attributes), signal, "").values
        )
        if not self._services.admits(sender.service, self.now()):
            self.intake.drop(signal, "too_many_names", service=OTHER_SERVICES)
            sender = sender._replace(service=OTHER_SERVICES)
        kept = [p for p in resource.attributes if p.key in _KEPT_OF_RESOURCE]
        return sender, otlp_attributes.read(_bytes(kept))

    def _attributes(self, pairs: Iterable[bytes], signal: str, service: str) -> Attributes:
        try:
            found = otlp_attributes.read(pairs)
        except DecodeError as exc:
            raise RejectedError("unreadable") from exc
        if found.redacted:
            self.intake.drop(signal, "redacted", service=service, count=found.redacted)
        if found.were_cut:
            self.intake.drop(signal, "attributes_cut", service=service)
        return found


def _bytes(pairs: Iterable[Any]) -> Iterator[bytes]:
    """Yield each KeyValue in the form that `otlp_attributes.read` accepts."""
    return (pair.SerializeToString() for pair in pairs)


def _is_id(found: bytes, length: int) -> bool:
    """Return whether an id is valid: of the right length and not all zeros (W3C Trace Context)."""
    return len(found) == length and any(found)


def _name(text: str) -> str:
    """Return the redacted name of a metric or a scope, unlike that of any other."""
    return otlp_sender.shortened(redaction.cut(text, otlp_attributes.MAX_CHARACTERS), 200)


def _started(at: int, until: int) -> int:
    """Return when a series started to count; 0 if its sender does not know, or not sensibly."""
    return at if 0 < at <= until else 0


def _failed(status: int, code: str) -> bool:
    return naming.is_failure(code) or (status == _STATUS_ERROR and code not in naming.CALLERS_FAULT)


def _severity(number: int, text: str) -> int:
    """Return the severity number, derived from the text if there is no valid number."""
    if number in _SEVERITIES:
        return number
    word = text.strip().upper()
    base = _SEVERITY_TEXTS.get(word.rstrip("234"), 0)
    return base + (int(word[-1]) - 1 if base and word[-1] in "234" else 0)


def _text(record: Any, attributes: Mapping[str, Any]) -> str:
    """Return the text of a log record; for an event without a body, its name."""
    body = otlp_attributes.plain(record.body)
    if body is None:
        return str(record.event_name or attributes.get("event.name") or "")
    return body if isinstance(body, str) else to_json(redaction.value("", body))
