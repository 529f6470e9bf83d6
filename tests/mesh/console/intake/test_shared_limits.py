"""Limits that all senders share: one of them cannot use up what the others need."""

import sqlite3
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from mesh.console.intake import clock_offset, otlp_sender
from mesh.console.intake.clock_offset import ClockOffsets
from mesh.console.intake.otlp_sender import FORGOTTEN, Services
from mesh.console.store import intake_counters, interned
from mesh.console.store.intake_counters import IntakeCounters
from mesh.console.store.interned import MANY_NAMES
from mesh.console.store.rows import Point
from tests.mesh.console.conftest import Kept
from tests.mesh.console.intake.test_otlp_intake import settle
from tests.mesh.console.telemetry import CREATE, Batch, now


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that few items reach."""
    for module, name, value in (
        (interned, "MOST_SERIES", 40),
        (interned, "MOST_SERIES_OF_PROCESS", 10),
        (interned, "MOST_NAMES", 40),
        (interned, "MOST_NAMES_OF_SERVICE", 10),
        (interned, "RESERVED_NAMES", 10),
        (interned, "_FORGET_EVERY", 0),
        (otlp_sender, "MAX_SERVICES", 40),
        (clock_offset, "_MAX_SENDERS", 40),
        (intake_counters, "MOST_KINDS", 40),
    ):
        monkeypatch.setattr(module, name, value)


def point(process: str, label: object, *, pushed: int = 1) -> Point:
    at = now() // 1000
    return Point(process, "x", f'{{"k":"{label}"}}', at, 1.0, 0.0, "", pushed=pushed)


def spans(service: str, *names: str) -> Any:
    batch = Batch()
    for name in names:
        batch.span(service, name, ms=0, start=now() - 110_000_000_000)
    return batch.request


def named(kept: Kept, service: str) -> list[str]:
    """Return the names of the spans of a service."""
    return [
        name
        for (name,) in kept.rows(
            "SELECT n.text FROM spans s JOIN names n ON n.id = s.name JOIN services v"
            " ON v.id = s.service WHERE v.name = ? ORDER BY s.id",
            service,
        )
    ]


class TestSeries:
    def test_one_process(self, kept: Kept) -> None:
        """
        A process with too many series loses its own, and no other process does.
        """
        kept.writer.offer_points([point("greedy", number) for number in range(50)])
        kept.writer.offer_points([point("honest", number) for number in range(5)])
        kept.writer.flush()

        counts = dict(kept.rows("SELECT process, count(*) FROM series GROUP BY process"))
        assert {"greedy": 10, "honest": 5} == counts
        assert {("too_many_series", "greedy"): 40} == kept.dropped()

    def test_scraped(self, kept: Kept) -> None:
        """
        Pushed series, of however many processes, take no room from scraped ones.
        """
        kept.writer.offer_points([point(f"greedy-{n % 20}", n) for n in range(200)])
        kept.writer.offer_points([point("gateway", "limit", pushed=0)])
        kept.writer.flush()

        assert [(0, 1), (1, 40)] == kept.rows("SELECT pushed, count(*) FROM series GROUP BY pushed")

    def test_room_again(self, make: Callable[..., Kept]) -> None:
        """
        Series without points leave room for others, also of the same process.
        """
        kept = make(points_retention=timedelta(minutes=2))
        old = now() // 1000 - 119_500_000
        kept.writer.offer_points([point("shop", n)._replace(at=old) for n in range(20)])
        kept.writer.flush()
        settle(kept, until="SELECT count(*) = 0 FROM series")
        kept.writer.offer_points([point("shop", n) for n in range(30, 40)])
        kept.writer.flush()

        assert [(10,)] == kept.rows("SELECT count(*) FROM series")


class TestNames:
    def test_one_service(self, kept: Kept) -> None:
        """
        A service with too many names of spans loses its own, and no other service does.
        """
        kept.take("traces", spans("greedy", *(f"n{number}" for number in range(50))))
        kept.take("traces", spans("honest", "mine"))

        assert ["mine"] == named(kept, "honest")
        assert 10 < named(kept, "greedy").count(MANY_NAMES)

    def test_mesh(self, kept: Kept) -> None:
        """
        When the names are used up, workloads of the mesh have a reserve, and methods of the
        contract are known from any sender.
        """
        for service in range(20):
            kept.take("traces", spans(f"greedy-{service}", *(f"{service} {n}" for n in range(20))))
        kept.take("traces", spans("gateway-2-envoy", "GET /new"))
        kept.take("traces", spans("other", CREATE, "new"))

        assert ["GET /new"] == named(kept, "gateway-2-envoy")
        assert [CREATE, MANY_NAMES] == named(kept, "other")

    def test_forgotten(self, make: Callable[..., Kept]) -> None:
        """
        Names and services that no span has any more are deleted and leave room for others.
        """
        kept = make(retention=timedelta(minutes=2))

        def age(_: object, db: sqlite3.Connection) -> None:
            db.execute("UPDATE spans SET start = start - 60000000")
            db.execute("UPDATE services SET last = last - 60000000")

        kept.take("traces", spans("shop", *(f"old {number}" for number in range(20))))
        kept.writer.do(age)
        settle(kept, until="SELECT count(*) = 0 FROM services")
        kept.take("traces", spans("shop", "refused"))
        settle(kept, until="SELECT count(*) < 5 FROM names")
        kept.take("traces", spans("shop", "new"))

        assert [MANY_NAMES, "new"] == named(kept, "shop")


class TestServices:
    def test_mesh(self) -> None:
        """
        Invented services hide no workload of the mesh, and none for longer than a day.
        """
        services = Services()
        invented = [services.admits(f"invented-{number}", 0) for number in range(50)]

        assert 40 == invented.count(True)
        assert services.admits("survey-2-envoy", 1)
        assert not services.admits("shop", 1)
        assert services.admits("invented-1", FORGOTTEN)
        assert services.admits("shop", FORGOTTEN)
        assert services.admits("invented-1", FORGOTTEN)


def test_clocks() -> None:
    """
    Invented senders hide no wrong clock.
    """
    clocks = ClockOffsets(lambda: 1_000_000_000_000_000)
    for number in range(100):
        clocks.observe(f"invented-{number}", 1_000_000_000_000_000)
    clocks.observe("survey", 1_000_000_120_000_000)

    assert {"survey": 120.0} == clocks.wrong()


def test_counters() -> None:
    """
    Losses of invented senders hide those of no other, and none goes uncounted.
    """
    times = iter(range(1000))
    intake = IntakeCounters(lambda: next(times))
    for number in range(100):
        intake.drop("traces", "no_ids", service=f"invented-{number}")
    intake.drop("metrics", "too_many_series", service="gateway", count=7)
    counts = {(one.reason, one.service): one.count for one in intake.dropped()}

    assert 7 == counts["too_many_series", "gateway"]
    assert 107 == sum(counts.values())
    assert len(counts) <= 42
