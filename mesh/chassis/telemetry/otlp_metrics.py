"""The metrics of prometheus-client over OTLP: one definition, two exporters."""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import REGISTRY
from prometheus_client.core import Metric as Family
from prometheus_client.samples import Sample

from mesh.chassis import background
from mesh.chassis.telemetry.metrics import redacted

DEFAULT_SECONDS = 60.0
_UNITS = {"_seconds": "s", "_bytes": "By"}
"""Units by the end of Prometheus's names."""
_SCOPE = InstrumentationScope("prometheus_client")


class MetricsPusher:
    """Exports the registry of this process periodically, from its own thread."""

    def __init__(self, resource: Resource, options: dict[str, Any] | None = None) -> None:
        self._resource = resource
        self._exporter = OTLPMetricExporter(**(options or {}))
        self._started = time.time_ns()
        self._stopping = threading.Event()
        self._thread = background.thread("export of metrics", self._run)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Export once more and stop the thread."""
        self._stopping.set()
        self._thread.join()
        self._exporter.shutdown()

    def _run(self) -> None:
        seconds = interval(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", ""))
        ending = False
        while not ending:
            ending = self._stopping.wait(seconds)
            self._exporter.export(self.data())

    def data(self) -> MetricsData:
        """Return the current content of the registry."""
        families = map(redacted, REGISTRY.collect())
        metrics = [convert(f, start=self._started, now=time.time_ns()) for f in families]
        scope = ScopeMetrics(_SCOPE, [m for m in metrics if m is not None], "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])


def interval(milliseconds: str) -> float:
    """Return ``OTEL_METRIC_EXPORT_INTERVAL`` in seconds; the default if it is not a number."""
    return int(milliseconds) / 1000 if milliseconds.isdecimal() else DEFAULT_SECONDS


def convert(family: Family, *, start: int, now: int) -> Metric | None:
    """Return *family* in the form of the OpenTelemetry SDK; None if it has no samples.

    Args:
        family: Metrics of one name.
        start: Start time of the counters, Unix time in nanoseconds.
        now: When the values were read, Unix time in nanoseconds.
    """
    data: Sum | Gauge | Histogram
    if family.type == "histogram":
        data = Histogram(list(_histograms(family, start, now)), AggregationTemporality.CUMULATIVE)
    elif family.type == "counter":
        counts = [s for s in family.samples if s.name.endswith("_total")]
        data = Sum(_numbers(counts, start, now), AggregationTemporality.CUMULATIVE, True)  # noqa: FBT003 - the SDK's signature
    else:
        data = Gauge(_numbers(family.samples, start, now))
    name = f"{family.name}_total" if family.type == "counter" else family.name
    unit = next((unit for end, unit in _UNITS.items() if family.name.endswith(end)), "")
    return Metric(name, family.documentation, unit, data) if data.data_points else None


def _numbers(samples: Iterable[Sample], start: int, now: int) -> list[NumberDataPoint]:
    return [NumberDataPoint(sample.labels, start, now, sample.value) for sample in samples]


def _exemplars(samples: Iterable[Sample]) -> list[Exemplar]:
    """Return what links the samples to traces."""
    return [
        Exemplar(
            {},
            found.value,
            int(float(found.timestamp or 0) * 1e9),
            span_id=int(found.labels["span_id"], 16),
            trace_id=int(found.labels["trace_id"], 16),
        )
        for sample in samples
        if (found := sample.exemplar) and {"span_id", "trace_id"} <= found.labels.keys()
    ]


def _histograms(family: Family, start: int, now: int) -> Iterator[HistogramDataPoint]:
    for labels, group in groupby(family.samples, _labels_but_bound):
        samples = list(group)
        buckets: list[tuple[float, float]] = []
        total = 0.0
        for sample in samples:
            if sample.name.endswith("_bucket"):
                buckets.append((float(sample.labels["le"]), sample.value))
            elif sample.name.endswith("_sum"):
                total = sample.value
        counts = [int(count) for _, count in buckets]
        unknown: Any = None  # neither is kept by prometheus-client
        yield HistogramDataPoint(
            attributes=dict(labels),
            start_time_unix_nano=start,
            time_unix_nano=now,
            count=counts[-1],
            sum=total,
            # Prometheus buckets are cumulative, OpenTelemetry's are not.
            bucket_counts=[
                count - before for before, count in zip([0, *counts[:-1]], counts, strict=True)
            ],
            explicit_bounds=[bound for bound, _ in buckets[:-1]],
            min=unknown,
            max=unknown,
            exemplars=_exemplars(samples),
        )


def _labels_but_bound(sample: Sample) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in sample.labels.items() if name != "le")
