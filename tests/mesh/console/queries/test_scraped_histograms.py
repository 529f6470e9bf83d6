"""Percentiles of histograms that the console scrapes."""

import contextlib
import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from mesh.console import histograms
from mesh.console.intake import prometheus_text
from mesh.console.queries import time_series
from mesh.console.store import schema
from tests.mesh.console.conftest import Kept
from tests.mesh.console.test_histograms import BOUNDS, explicit, values

NAME = "amarre_lab_seconds"
SECOND = 1_000_000


def drawn(kept: Kept, now: int) -> dict[str, Any]:
    """Return the only series of the last 10 minutes."""
    kept.writer.flush()
    with contextlib.closing(schema.open_reader(kept.path)) as db:
        (found,) = time_series.points(db, NAME, "", now - 600 * SECOND, now)
    return found


@pytest.mark.parametrize("write", [generate_latest, openmetrics])
def test_percentiles(kept: Kept, write: Any) -> None:
    """
    Percentiles are those of Prometheus over what was measured between the scrapes, across a
    restart of the process; what it measured before the first scrape does not count.
    """
    now, measured, families = time.time_ns() // 1000, list[float](), prometheus_text.Families()
    for life in range(2):
        registry = CollectorRegistry()
        histogram = Histogram(NAME, "Of the lab.", ["kind"], buckets=BOUNDS, registry=registry)
        for scrape in range(3):
            batch = values(10 * life + scrape, 40)
            for value in batch:
                histogram.labels("analysis").observe(value)
            if life or scrape:
                measured += batch
            reading = prometheus_text.read(
                write(registry).decode(),
                process="lab",
                at=now - (100 - 30 * life - 5 * scrape) * SECOND,
                families=families,
            )
            kept.writer.offer_points(reading.points)
    found = drawn(kept, now)

    assert ("percentiles", "", 200, {"kind": "analysis"}) == (
        *(found["draws"], found["notDrawn"], found["count"]),
        found["labels"],
    )
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        assert pytest.approx(histograms.quantile(explicit(measured), share)) == found[name]


@pytest.mark.parametrize(
    "buckets",
    ['{le="1"} 5\n', '{le="1"} 5\n{le="+Inf"} 4\n', '{le="1"} 1\n{le="+Inf"} 3\n'],
    ids=["no last bucket", "decreasing", "another count"],
)
def test_contradictory(kept: Kept, buckets: str) -> None:
    """
    Of a histogram whose buckets contradict its count, only the rate is drawn, with the reason.
    """
    now = time.time_ns() // 1000
    lines = "".join(f"{NAME}_bucket{line}\n" for line in buckets.splitlines())
    text = f"# TYPE {NAME} histogram\n{lines}{NAME}_count 4\n{NAME}_sum 2\n"
    for seconds in (20, 10):
        at = now - seconds * SECOND
        kept.writer.offer_points(prometheus_text.read(text, process="lab", at=at).points)
    found = drawn(kept, now)

    assert ("rate", "its points have a count and a sum, but no buckets") == (
        found["draws"],
        found["notDrawn"],
    )
