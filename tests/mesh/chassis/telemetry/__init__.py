"""Shared by the tests of telemetry: spans kept in memory, and a listening collector."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

from mesh.chassis.telemetry import tracing
from mesh.chassis.telemetry.conventions import Conventions

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-2] + "00"
TRACE = SAMPLED[3:35]


class Spans:
    """The spans that have ended, in order."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def __iter__(self) -> Iterator[ReadableSpan]:
        return iter(self._exporter.get_finished_spans())

    def __len__(self) -> int:
        return len(self._exporter.get_finished_spans())

    def of(self, kind: str) -> list[ReadableSpan]:
        """Return the spans of a kind: ``SERVER``, ``CLIENT``."""
        return [span for span in self if span.kind.name == kind]


@functools.cache
def _exporter() -> InMemorySpanExporter:
    """Create the provider of this process, which OpenTelemetry allows to be set once."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(ALWAYS_ON), shutdown_on_exit=False)
    provider.add_span_processor(Conventions(SimpleSpanProcessor(exporter)))
    trace.set_tracer_provider(provider)
    return exporter


@contextlib.contextmanager
def recorded() -> Iterator[Spans]:
    """Record the spans that this process creates within the body."""
    exporter = _exporter()
    exporter.clear()
    tracing.use(trace.get_tracer("test"))
    try:
        yield Spans(exporter)
    finally:
        tracing.use(None)


class Collector:
    """The requests to an OTLP collector, by signal."""

    def __init__(self, port: int) -> None:
        self.resources: dict[str, list[Any]] = {"traces": [], "logs": [], "metrics": []}
        self.metadata: dict[str, dict[str, str]] = {}
        """The headers of the last request of each signal."""
        self.port = port
        self._news = threading.Condition()

    def took(self, signal: str, resources: Any, context: Any) -> None:
        with self._news:
            self.metadata[signal] = dict(context.invocation_metadata())
            self.resources[signal].extend(resources)
            self._news.notify_all()

    def wait_for(self, *signals: str, seconds: float = 10.0) -> bool:
        """Return whether each of *signals* arrived in time."""
        with self._news:
            return self._news.wait_for(
                lambda: all(self.resources[signal] for signal in signals), seconds
            )


@contextlib.contextmanager
def collecting(port: int) -> Iterator[Collector]:
    """Serve an OTLP collector on *port*."""
    collector = Collector(port)
    server = grpc.server(futures.ThreadPoolExecutor(3))

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            collector.took("traces", request.resource_spans, context)
            return trace_service_pb2.ExportTraceServiceResponse()

    class Logs(logs_service_pb2_grpc.LogsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            collector.took("logs", request.resource_logs, context)
            return logs_service_pb2.ExportLogsServiceResponse()

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            collector.took("metrics", request.resource_metrics, context)
            return metrics_service_pb2.ExportMetricsServiceResponse()

    for add, servicer in (
        (trace_service_pb2_grpc.add_TraceServiceServicer_to_server, Traces()),
        (logs_service_pb2_grpc.add_LogsServiceServicer_to_server, Logs()),
        (metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server, Metrics()),
    ):
        add(servicer, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait()
