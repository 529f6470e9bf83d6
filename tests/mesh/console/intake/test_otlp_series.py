"""Which pushed points form one time series."""

from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from mesh.console.intake.clock_offset import ClockOffsets
from tests.mesh.console.conftest import Kept, Running
from tests.mesh.console.telemetry import Batch, now

Resource = dict[str, str]


def gauge(resource: Resource, name: str = "load", scope: str = "", **labels: str) -> Any:
    """Return a request with one point of a gauge."""
    request = ExportMetricsServiceRequest()
    part = request.resource_metrics.add()
    for key, value in resource.items():
        part.resource.attributes.add(key=f"service.{key}").value.string_value = value
    into = part.scope_metrics.add()
    into.scope.name = scope
    point = into.metrics.add(name=name).gauge.data_points.add(time_unix_nano=now(), as_int=1)
    for key, value in labels.items():
        point.attributes.add(key=key.replace("__", ".")).value.string_value = value
    return request


def processes(kept: Kept) -> list[str]:
    return [name for (name,) in kept.rows("SELECT process FROM series ORDER BY id")]


LONG = "x" * 300


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"name": "shop", "instance.id": "1"}, {"name": "cart", "instance.id": "1"}),
        ({"name": "shop", "instance.id": "1"}, {"name": "shop", "instance.id": "2"}),
        ({"name": "shop", "namespace": "a"}, {"name": "shop", "namespace": "b"}),
        ({"name": "shop", "namespace": "a"}, {"name": "shop"}),
        ({"name": "shop", "instance.id": "cart"}, {"name": "cart", "instance.id": "shop"}),
        ({"name": "shop", "namespace": "cart"}, {"name": "cart", "instance.id": "shop"}),
        ({"name": "shop", "instance.id": "shop-1"}, {"name": "shop", "instance.id": "shop-2"}),
        ({"name": "shop", "instance.id": "gateway-1"}, {"name": "gateway-1"}),
        ({"name": "shop", "instance.id": f"{LONG}1"}, {"name": "shop", "instance.id": f"{LONG}2"}),
        ({"name": f"{LONG}1"}, {"name": f"{LONG}2"}),
        (
            {"name": "gateway", "namespace": "amarre", "instance.id": "gateway-1"},
            {"name": "gateway", "namespace": "other", "instance.id": "gateway-1"},
        ),
        (
            {"name": "gateway", "namespace": "amarre", "instance.id": "gateway-1"},
            {"name": "shop", "namespace": "amarre", "instance.id": "gateway-1"},
        ),
    ],
)
def test_processes(kept: Kept, one: Resource, other: Resource) -> None:
    """
    Points and clocks of different processes stay apart: namespace, name and instance id identify.

    Source: OpenTelemetry semantic conventions, service; metrics data model, Timeseries Model.
    """
    clocks = ClockOffsets(kept.intake._now)
    kept.decoder.observe = clocks.observe
    kept.take("metrics", gauge(one), gauge(other))
    for resource in (one, other):
        batch = Batch()
        batch.span("x", "y", ms=100_000)
        batch.request.resource_spans[0].resource.ClearField("attributes")
        for key, value in resource.items():
            pair = batch.request.resource_spans[0].resource.attributes.add(key=f"service.{key}")
            pair.value.string_value = value
        kept.take("traces", batch.request)

    assert 2 == len({*processes(kept)})
    assert {*processes(kept)} == clocks.wrong().keys()


@pytest.mark.parametrize("instance", ["gateway", "gateway-1", "gateway-6d9f7c-abcde"])
def test_mesh_processes(kept: Kept, instance: str) -> None:
    """
    Processes of the mesh are called by their instance ids, which are the names of scrape targets.
    """
    sender = {"name": "gateway", "namespace": "amarre", "instance.id": instance}
    kept.take("metrics", gauge(sender))

    assert [instance] == processes(kept)


@pytest.mark.parametrize(
    ("one", "other"),
    [({"name": f"{LONG}1"}, {"name": f"{LONG}2"}), ({"scope": f"{LONG}1"}, {"scope": f"{LONG}2"})],
)
def test_long_names(kept: Kept, one: dict[str, str], other: dict[str, str]) -> None:
    """
    Metrics and scopes whose long names differ only at the end stay apart.
    """
    kept.take("metrics", gauge({"name": "shop"}, **one), gauge({"name": "shop"}, **other))

    assert [(2,)] == kept.rows("SELECT count(*) FROM series")


async def test_null_character(running: Running) -> None:
    """
    A metric whose name contains a null character can be queried, with another one in its place.
    """
    await running.take("metrics", gauge({"name": "a\0b"}, name="c\0d"))

    (found,) = (await running.get("series", name="c\ufffdd", process="a\ufffdb"))["items"]
    assert 1 == len(found["points"])


async def test_comma(running: Running) -> None:
    """
    A process and a kind whose name contains a comma are listed as one.
    """
    request = gauge({"name": "shop", "instance.id": "a,b"}, name="orders")
    metric = request.resource_metrics[0].scope_metrics[0].metrics.add(name="orders")
    metric.sum.aggregation_temporality = 1
    metric.sum.is_monotonic = True
    metric.sum.data_points.add(time_unix_nano=now(), as_int=1)
    await running.take("metrics", request)

    (found,) = (await running.get("series"))["items"]
    assert (["shop:a,b"], ["counter, delta", "gauge"]) == (found["processes"], found["kinds"])


ALIKE: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "personal": ({"user__email": "a@example.org"}, {"user__email": "b@example.org"}),
    "credential": ({"api_key": "one"}, {"api_key": "two"}),
    "part of a value": ({"path": "/x?user=1"}, {"path": "/x?user=2"}),
    "long value": ({"path": f"{'x' * 3000}1"}, {"path": f"{'x' * 3000}2"}),
    "too many": (
        {f"k{n:03}": "1" for n in range(120)},
        {f"k{n:03}": "1" if n < 119 else "2" for n in range(120)},
    ),
}


@pytest.mark.parametrize(("one", "other"), ALIKE.values(), ids=ALIKE)
def test_redacted_labels(kept: Kept, one: dict[str, str], other: dict[str, str]) -> None:
    """
    Points whose labels differ only in what is redacted or left out are different series.

    Source: OpenTelemetry metrics data model, Single-Writer: a series has all its attributes.
    """
    for labels in (one, one, other):
        kept.take("metrics", gauge({"name": "shop"}, **labels))

    found = kept.rows("SELECT labels, count(*) FROM series JOIN points ON series = id GROUP BY id")
    assert [2, 1] == [count for _, count in found]
    assert "example.org" not in str(found)
    assert "user=1" not in str(found)
