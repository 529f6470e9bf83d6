"""Pushed metrics: counts, rates, and percentiles of both kinds of histograms."""

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    Aggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
)
from opentelemetry.sdk.resources import Resource

from mesh.console import histograms
from tests.mesh.console.conftest import Running
from tests.mesh.console.test_histograms import BOUNDS, explicit, values

DELTA, CUMULATIVE = 1, 2
SECOND = 1_000_000_000
FINEST = 1.09
"""The ratio of the bounds of 160 exponential buckets that hold values from 1 ms to 10 s."""
KINDS = {
    "explicit": ExplicitBucketHistogramAggregation(BOUNDS),
    "exponential": ExponentialBucketHistogramAggregation(),
}


class Sender:
    """A process with the OpenTelemetry SDK that pushes a histogram."""

    def __init__(self, aggregation: Aggregation, temporality: AggregationTemporality) -> None:
        self._reader = InMemoryMetricReader(
            preferred_temporality={Histogram: temporality},
            preferred_aggregation={Histogram: aggregation},
        )
        self._provider = MeterProvider(
            [self._reader], Resource({"service.name": "lab"}), shutdown_on_exit=False
        )
        meter = self._provider.get_meter("of.the.lab")
        self._seconds = meter.create_histogram("lab.duration", unit="s")

    async def push(self, running: Running, known: list[float]) -> None:
        """Record values and push them."""
        for value in known:
            self._seconds.record(value, {"kind": "analysis"})
        data = self._reader.get_metrics_data()
        assert data is not None
        await running.take("metrics", encode_metrics(data))


async def shown(running: Running, name: str = "lab.duration", **given: str) -> dict[str, Any]:
    """Return the only series of a name."""
    (found,) = (await running.get("series", name=name, **given))["items"]
    return dict(found)


@pytest.mark.parametrize(
    "temporality", [AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE]
)
class TestSdk:
    async def test_explicit(self, running: Running, temporality: AggregationTemporality) -> None:
        """
        Percentiles of classic histograms are those of Prometheus over all values.
        """
        sender, batches = Sender(KINDS["explicit"], temporality), [values(n, 40) for n in range(5)]
        for batch in batches:
            await sender.push(running, batch)
        found = await shown(running)

        every = explicit([value for batch in batches for value in batch])
        assert ("percentiles", 200, False) == (found["draws"], found["count"], found["few"])
        assert ("s", "of.the.lab", {"kind": "analysis"}) == (
            found["unit"],
            found["scope"],
            found["labels"],
        )
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            assert pytest.approx(histograms.quantile(every, share)) == found[name]
        assert 200 == sum(point["count"] for point in found["history"])

    async def test_exponential(self, running: Running, temporality: AggregationTemporality) -> None:
        """
        Percentiles of exponential histograms deviate by at most one bucket from the exact ones,
        also if the scale has changed, since the first values were close together.
        """
        sender = Sender(KINDS["exponential"], temporality)
        batches = [[0.05, 0.0501] * 10, *(values(n, 60) for n in range(4)), [0.001, 9.9]]
        for batch in batches:
            await sender.push(running, batch)
        found = await shown(running)

        every = sorted(value for batch in batches for value in batch)
        assert ("percentiles", len(every)) == (found["draws"], found["count"])
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            exact = every[math.ceil(share * len(every)) - 1]
            assert 1 / FINEST <= found[name] / exact <= FINEST

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(("count", "few"), [(19, True), (20, False)])
    async def test_few(
        self,
        running: Running,
        temporality: AggregationTemporality,
        kind: str,
        count: int,
        few: bool,
    ) -> None:
        """
        Percentiles of few values are marked.
        """
        await Sender(KINDS[kind], temporality).push(running, values(7, count))
        found = await shown(running)
        assert (count, few) == (found["count"], found["few"])


def request(kind: str, temporality: int = CUMULATIVE) -> tuple[ExportMetricsServiceRequest, Any]:
    """Return a request with an empty metric of a kind, and the metric's data."""
    message = ExportMetricsServiceRequest()
    part = message.resource_metrics.add()
    part.resource.attributes.add(key="service.name").value.string_value = "lab"
    metric: Any = part.scope_metrics.add().metrics.add(name="lab.duration", unit="s")
    data = getattr(metric, kind)
    data.SetInParent()
    if kind in {"sum", "histogram", "exponential_histogram"}:
        data.aggregation_temporality = temporality
    return message, data


def at(minutes: float) -> int:
    """Return a time some minutes ago, in nanoseconds."""
    return time.time_ns() - int(minutes * 60 * SECOND)


class TestRange:
    async def test_before(self, running: Running) -> None:
        """
        Of a cumulative histogram, only what was added within the range counts.
        """
        message, data = request("histogram")
        for minutes, counts in ((50, [90, 0, 0]), (40, [90, 10, 0]), (20, [90, 40, 0])):
            data.data_points.add(
                time_unix_nano=at(minutes),
                start_time_unix_nano=at(90),
                count=sum(counts),
                explicit_bounds=[1.0, 2.0],
                bucket_counts=counts,
            )
        await running.take("metrics", message)
        whole = await shown(running)
        late = await shown(running, window="30m")

        # The first point counts from before the range began: how much of it, nobody knows.
        assert (40, 30) == (whole["count"], late["count"])
        assert 1.5 == whole["p50"] == late["p50"]
        assert [pytest.approx(30 / 1200)] == [point["rate"] for point in late["history"]]

    @pytest.mark.parametrize("counts", [[0, 5], [20, 0]], ids=["less", "more"])
    async def test_restart(self, running: Running, counts: list[int]) -> None:
        """
        A process that starts again counts from zero, also if it has soon counted more than before.
        """
        message, data = request("histogram")
        for minutes, started, found in ((20, 30, [10, 0]), (5, 10, counts)):
            data.data_points.add(
                time_unix_nano=at(minutes),
                start_time_unix_nano=at(started),
                count=sum(found),
                explicit_bounds=[1.0],
                bucket_counts=found,
            )
        await running.take("metrics", message)

        assert 10 + sum(counts) == (await shown(running))["count"]

    async def test_sent_twice(self, running: Running) -> None:
        """
        A delta that is sent twice counts once.
        """
        message, data = request("exponential_histogram", DELTA)
        point = data.data_points.add(time_unix_nano=at(1), start_time_unix_nano=at(2), count=30)
        point.positive.bucket_counts[:] = [30]
        await running.take("metrics", message)
        await running.take("metrics", message)
        found = await shown(running)

        assert 30 == found["count"]
        assert 2**0.5 == pytest.approx(found["p50"])

    @pytest.mark.parametrize(("temporality", "second"), [(DELTA, 3), (CUMULATIVE, 8)])
    async def test_counter(self, running: Running, temporality: int, second: int) -> None:
        """
        Counters of both temporalities are drawn as rates.
        """
        message, data = request("sum", temporality)
        data.is_monotonic = True
        for minutes, value, since in ((20, 5, 30), (10, second, 20)):
            began = at(30 if temporality == CUMULATIVE else since)
            data.data_points.add(
                time_unix_nano=at(minutes), start_time_unix_nano=began, as_int=value
            )
        await running.take("metrics", message)
        found = await shown(running)

        assert ("rate", 8) == (found["draws"], found["count"])
        assert [pytest.approx(5 / 600), pytest.approx(3 / 600)] == [
            point["rate"] for point in found["history"]
        ]

    async def test_scopes(self, running: Running) -> None:
        """
        Two libraries that measure the same name at the same time are two series.
        """
        message, data = request("gauge")
        data.data_points.add(time_unix_nano=at(1), as_double=1.0)
        other = message.resource_metrics[0].scope_metrics.add()
        other.CopyFrom(message.resource_metrics[0].scope_metrics[0])
        other.scope.name = "httpx"
        await running.take("metrics", message)

        items = (await running.get("series", name="lab.duration"))["items"]
        assert ["", "httpx"] == [one["scope"] for one in items]


def _summary() -> ExportMetricsServiceRequest:
    message, data = request("summary")
    data.data_points.add(time_unix_nano=at(1), count=30)
    return message


def _without_buckets() -> ExportMetricsServiceRequest:
    message, data = request("histogram")
    data.data_points.add(time_unix_nano=at(1), start_time_unix_nano=at(2), count=30, sum=3.0)
    return message


def _other_bounds() -> ExportMetricsServiceRequest:
    message, data = request("histogram", DELTA)
    for minutes, bound in ((3, 1.0), (2, 2.0)):
        data.data_points.add(
            time_unix_nano=at(minutes),
            count=30,
            explicit_bounds=[bound],
            bucket_counts=[30, 0],
        )
    return message


def _changes() -> ExportMetricsServiceRequest:
    message, data = request("sum", DELTA)
    data.data_points.add(time_unix_nano=at(1), as_int=-3)
    return message


class TestNotDrawn:
    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (_summary, "percentiles of its sender"),
            (_without_buckets, "no buckets"),
            (_other_bounds, "bucket bounds changed"),
            (_changes, "starting point is unknown"),
        ],
        ids=["summary", "without buckets", "other bounds", "changes"],
    )
    async def test_reason(
        self, running: Running, make: Callable[[], ExportMetricsServiceRequest], reason: str
    ) -> None:
        """
        What cannot be drawn says why, and shows no percentile.
        """
        await running.take("metrics", make())
        found = await shown(running)

        assert reason in found["notDrawn"]
        assert (None, None, None) == (found["p50"], found["p95"], found["p99"])
        assert found["points"]


class TestBadBuckets:
    @pytest.mark.parametrize(
        ("kind", "point"),
        [
            ("histogram", {"count": 2, "explicit_bounds": [1.0], "bucket_counts": [2]}),
            ("histogram", {"count": 2, "explicit_bounds": [2.0, 1.0], "bucket_counts": [1, 1, 0]}),
            ("histogram", {"count": 9, "explicit_bounds": [1.0], "bucket_counts": [1, 1]}),
            ("histogram", {"count": 1, "explicit_bounds": [math.nan], "bucket_counts": [1, 0]}),
            ("exponential_histogram", {"count": 1, "zero_count": 1, "scale": 2_000_000_000}),
            ("exponential_histogram", {"count": 5, "zero_count": 1}),
            ("exponential_histogram", {"count": 1, "zero_count": 1, "zero_threshold": -1.0}),
        ],
        ids=["short", "descending", "count", "nan", "scale", "exponential count", "threshold"],
    )
    async def test_rejected(self, running: Running, kind: str, point: dict[str, Any]) -> None:
        """
        A point whose buckets contradict each other is rejected, counted and named to its sender.
        """
        message, data = request(kind)
        data.data_points.add(time_unix_nano=at(1), **point)
        answer = await running.client.post(
            f"{running.otlp}/v1/metrics",
            content=message.SerializeToString(),
            headers={"content-type": "application/x-protobuf"},
        )
        response = ExportMetricsServiceResponse()
        response.ParseFromString(answer.content)

        assert 1 == response.partial_success.rejected_data_points
        assert "buckets do not match" in response.partial_success.error_message
        assert [] == (await running.get("series"))["items"]
