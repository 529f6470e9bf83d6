"""Rows of the store: spans, links, log records and points of time series."""

from typing import NamedTuple


class Link(NamedTuple):
    """A link from a span to a span of this or another trace; ``attributes`` is JSON."""

    trace_id: bytes
    span_id: bytes
    attributes: str


class Span(NamedTuple):
    """
    One span.

    Times are in microseconds; ``attributes`` and ``events`` are JSON, ``events`` may be empty;
    ``proxy``, ``error`` and ``probe`` are 0 or 1; ``peer`` is empty if unknown.
    """

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    service: str
    instance: str
    name: str
    rpc: str
    kind: int
    proxy: int
    start: int
    duration: int
    error: int
    code: str
    message: str
    probe: int
    peer: str
    attributes: str
    events: str
    links: tuple[Link, ...] = ()

    @property
    def size(self) -> int:
        """Approximate size of the span in the file, in bytes, including indexes."""
        return 300 + len(self.attributes) + len(self.events)


class Log(NamedTuple):
    """One log record; ``level`` is the OTLP severity number, ids may be empty."""

    at: int
    service: str
    instance: str
    level: int
    trace_id: bytes
    span_id: bytes
    body: str
    attributes: str

    @property
    def size(self) -> int:
        """Approximate size of the record in the file, in bytes."""
        return 120 + len(self.body) + len(self.attributes)


class Point(NamedTuple):
    """
    One point of a time series.

    Of histograms, ``value`` is the count, ``total`` the sum, and ``buckets`` the form of
    `mesh.console.histograms`; empty if they are not stored.
    """

    process: str
    name: str
    labels: str
    at: int
    value: float
    total: float
    buckets: str
    kind: str = "gauge"
    """The metric kind: ``gauge``, ``counter``, ``histogram, delta`` and so on."""
    unit: str = ""
    scope: str = ""
    """The instrumentation scope of a pushed series: two may measure the same name."""
    pushed: int = 0
    started: int = 0
    """When the series started to count, in microseconds; 0 if unknown."""

    @property
    def series(self) -> tuple[str, str, str, str, str, str, int]:
        """The identity of its series."""
        return *self[:3], self.kind, self.unit, self.scope, self.pushed


Row = Span | Log | Point
