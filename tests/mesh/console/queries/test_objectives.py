"""Metrics: scraped from processes, aggregated, compared with objectives."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from mesh.chassis.telemetry import LATENCY_BUCKETS, names
from mesh.chassis.testing import free_port
from mesh.console.intake import prometheus_text
from mesh.console.queries import run_history
from mesh.console.queries.objectives import Total, covered, quantile
from mesh.console.settings import Target
from mesh.console.store import schema
from mesh.local.pki.certificate_authority import CertificateAuthority, install
from mesh.render.rules import slo
from tests.mesh.console.conftest import Running, Start
from tests.mesh.console.telemetry import Batch

EVERY = timedelta(milliseconds=50)


class Process:
    """The metrics of a fake process."""

    def __init__(self, exposed: Callable[[CollectorRegistry], bytes] = generate_latest) -> None:
        self.exposed = exposed
        self.restart()

    def restart(self) -> None:
        """Reset the counters."""
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            names.RPC_CLIENT_DURATION,
            "x",
            ["service", "method", "code"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.callers = Counter(
            names.RPC_SERVER_CALLS, "x", ["service", "method", "caller"], registry=self.registry
        )
        flight = Gauge(names.RPC_SERVER_IN_FLIGHT, "x", ["service"], registry=self.registry)
        flight.labels("survey").set(10)

    def call(
        self, code: str = "OK", seconds: float = 0.02, *, times: int = 1, trace: str = ""
    ) -> None:
        """Count calls of ListRequests by the gateway, with *trace* as exemplar."""
        exemplar = {"trace_id": trace} if trace else None
        for _ in range(times):
            self.seconds.labels("survey", "ListRequests", code).observe(seconds, exemplar)
            self.callers.labels("survey", "ListRequests", "gateway").inc()

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[Target]:
        """Serve ``/metrics``."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await reader.readuntil(b"\r\n\r\n")
                body = self.exposed(self.registry)
                head = (
                    f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + body)
                await writer.drain()
            writer.close()

        port = free_port()
        async with await asyncio.start_server(answer, "127.0.0.1", port):
            yield Target(process="survey", url=f"http://127.0.0.1:{port}/metrics")


async def method(running: Running, calls: float) -> dict[str, Any]:
    """Return ListRequests once that many calls have been scraped."""
    async with asyncio.timeout(10):
        while True:
            running.context.writer.flush()
            items = (await running.get("metrics", window="5m"))["items"]
            found: dict[str, Any] = next(i for i in items if i["rpc"] == "survey.ListRequests")
            if found["calls"] >= calls:
                return found
            await asyncio.sleep(0.02)


async def scraped(running: Running) -> None:
    """Wait until the process has been scraped."""
    async with asyncio.timeout(10):
        while not (await running.get("mesh"))["processes"][0]["up"]:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("runs", "seconds"),
    [
        pytest.param([], 300, id="unknown"),
        pytest.param([(100, 990)], 300, id="began before"),
        pytest.param([(900, 900)], 100, id="began within"),
        pytest.param([(100, 200), (900, 900)], 100, id="another before"),
        pytest.param([(750, 800), (900, 900)], 250, id="two within"),
        pytest.param([(1000, 1000)], 1, id="just now"),
    ],
)
def test_covered(tmp_path: Path, runs: list[tuple[int, int]], seconds: int) -> None:
    """
    Rates are over the time with data: the time before the mesh was started does not count.
    """
    with contextlib.closing(schema.open_writer(tmp_path / "console.sqlite")) as db:
        for started, seen in runs:
            row = started * 1_000_000, seen * 1_000_000
            db.execute("INSERT INTO runs (started, seen) VALUES (?, ?)", row)

        assert seconds == covered(db, 300, 1000)


class TestScraped:
    async def test_method(self, start: Start) -> None:
        """
        Calls of a process show as rate, errors, quantiles, budget and burn rate of its method.
        """
        process = Process()
        async with (
            process.served() as target,
            start(console_scrape=(target,), console_scrape_every=EVERY) as running,
        ):
            await scraped(running)
            process.call(times=98)
            process.call("UNAVAILABLE", 2.0)
            process.call("NOT_FOUND")
            found = await method(running, 100)
            history = (await running.get("metrics/survey.ListRequests", window="5m"))["items"]
            overview = await running.get("overview")
            edge = next(
                e
                for e in (await running.get("graph"))["items"]
                if e["method"] == "survey.ListRequests"
            )

        assert (100, 1, 0.01) == (found["calls"], found["errors"], found["errorRatio"])
        assert 10 < found["p50Ms"] <= 25
        assert found["p99Ms"] <= 2500
        assert {"OK": 98, "UNAVAILABLE": 1, "NOT_FOUND": 1} == found["codes"]
        # 1 % failed where 0.1 % may: ten times too fast, the budget spent ten times over.
        assert pytest.approx(10) == found["burnRates"]["1h"]
        assert slo.PAGES_ABOVE == found["burnLimit"]
        assert pytest.approx(-9) == found["budgetLeft"]
        assert pytest.approx(0.99) == found["withinLatency"]
        assert 100 == round(sum(point["rate"] * 5 for point in history))
        survey = next(s for s in overview["items"] if s["service"] == "survey")
        assert 100 == survey["calls"]
        assert survey["saturation"] > 0
        assert 100 == edge["calls"]

    async def test_streams_that_stay_open(self, start: Start) -> None:
        """
        Long-lived streams count neither as calls nor as errors of a service or the gateway; each
        method and route of the list can be opened.
        """
        process = Process()
        requests = Histogram(
            prometheus_text.HTTP_SECONDS,
            "x",
            ["method", "route", "status"],
            registry=process.registry,
        )
        async with (
            process.served() as target,
            start(console_scrape=(target,), console_scrape_every=EVERY) as running,
        ):
            await scraped(running)
            for route, status, seconds in (
                ("/", 200, 0.02),
                ("/api/v1/surveys/events", 200, 30.0),
                ("/api/v1/surveys/events", 503, 0.1),
            ):
                requests.labels("GET", route, status).observe(seconds)
            for code, seconds in (("OK", 30.0), ("UNAVAILABLE", 0.1)):
                process.seconds.labels("survey", "WatchRequests", code).observe(seconds)
            process.call()
            await method(running, 1)
            items = (await running.get("overview"))["items"]
            methods = (await running.get("metrics"))["items"]
            names = [f"{one['service']}.{one['method']}" for one in methods]
            shown = [await running.get(f"metrics/{quote(name, safe='')}") for name in names]

        stream = next(m for m in methods if m["rpc"] == "survey.WatchRequests")
        assert {"OK": 1, "UNAVAILABLE": 1} == stream["codes"]
        assert (True, None) == (stream["staysOpen"], stream["p95Ms"])
        assert not {"objective", "budgetLeft", "burnRates"} & stream.keys()
        assert "gateway.GET /api/v1/surveys/events" in names
        assert all("items" in one for one in shown)
        found = {item["service"]: item for item in items}
        for service in ("survey", "gateway"):
            assert (1, 0) == (found[service]["calls"], found[service]["errors"])
            assert found[service]["p99Ms"] <= 25

    async def test_restart(self, start: Start) -> None:
        """
        Calls are summed exactly across restarts of the process.
        """
        process = Process()
        async with (
            process.served() as target,
            start(console_scrape=(target,), console_scrape_every=EVERY) as running,
        ):
            await scraped(running)
            process.call(times=10)
            await method(running, 10)
            process.restart()
            process.call(times=4)
            found = await method(running, 14)

        assert 14 == found["calls"]

    async def test_runs(self, start: Start) -> None:
        """
        A previous run is available for comparison.
        """
        process = Process()
        async with process.served() as target:
            settings = {"console_scrape": (target,), "console_scrape_every": EVERY}
            async with start(**settings) as running:
                await scraped(running)
                process.call(times=7)
                await method(running, 7)
            async with start(**settings) as running:
                this, last = (await running.get("runs"))["items"]

        assert {} == this["methods"]
        assert 7 == last["methods"]["survey.ListRequests"]["calls"]
        assert last["started"] < last["seen"]

    async def test_before_the_console(self, start: Start) -> None:
        """
        Calls counted before the console started are ignored, since their time is unknown.
        """
        process = Process()
        process.call(times=1000)
        async with (
            process.served() as target,
            start(console_scrape=(target,), console_scrape_every=EVERY) as running,
        ):
            await scraped(running)
            process.call(times=3)
            found = await method(running, 3)

        assert 3 == found["calls"]

    async def test_down(self, start: Start) -> None:
        """
        A process that does not respond is down, and an alert reports it.
        """
        target = Target(process="survey", url=f"http://127.0.0.1:{free_port()}/metrics")
        async with (
            start(console_scrape=(target,), console_scrape_every=EVERY) as running,
            asyncio.timeout(10),
        ):
            alerts = list[Any]()
            while not alerts:
                alerts = (await running.get("overview"))["alerts"]
                await asyncio.sleep(0.02)
            (process,) = (await running.get("mesh"))["processes"]

        assert [("page", "ServiceDown")] == [(a["severity"], a["name"]) for a in alerts]
        assert (False, "does not respond") == (process["up"], process["fault"])

    async def test_burning(self, start: Start) -> None:
        """
        A method that fails far too often pages.
        """
        process = Process()
        async with (
            process.served() as target,
            start(console_scrape=(target,), console_scrape_every=EVERY) as running,
        ):
            await scraped(running)
            process.call(times=50)
            process.call("INTERNAL", times=5)
            await method(running, 55)
            (alert,) = (await running.get("overview"))["alerts"]

        assert ("page", "AvailabilityBudgetBurnsFast") == (alert["severity"], alert["name"])
        assert "survey.ListRequests" in alert["message"]

    async def test_certificates(self, start: Start, svids: Path, tmp_path: Path) -> None:
        """
        Installed certificates are shown with their remaining days; one close to expiry alerts.
        """
        folder = tmp_path / "certs"
        authority = CertificateAuthority.create()
        install(authority.issue_svid("auth"), folder / "auth")
        install(authority.issue_svid("survey", lifetime=timedelta(seconds=10)), folder / "survey")
        async with start(console_certs=folder) as running:
            found = (await running.get("mesh"))["certificates"]
            alerts = (await running.get("overview"))["alerts"]

        assert ["survey", "auth"] == [one["process"] for one in found]
        assert 0.9 < found[1]["daysLeft"] <= 1
        assert ["CertificateExpiring"] == [alert["name"] for alert in alerts]


class TestQuantile:
    @pytest.mark.parametrize(
        ("buckets", "share", "expected"),
        [
            ({}, 0.5, None),
            ({0.1: 0, float("inf"): 0}, 0.5, None),
            ({0.1: 10, float("inf"): 10}, 0.5, 50.0),
            ({0.1: 0, 0.2: 10, float("inf"): 10}, 0.5, 150.0),
            ({0.1: 0, float("inf"): 10}, 0.5, 100.0),
            ({0.1: 5, 0.2: 10, float("inf"): 10}, 1.0, 200.0),
        ],
        ids=["none", "zeros", "within", "second", "beyond", "all"],
    )
    def test_values(
        self, buckets: dict[float, float], share: float, expected: float | None
    ) -> None:
        """
        A quantile is interpolated within its bucket; beyond the last bound, it is that bound.
        """
        assert expected == quantile(buckets, share)

    def test_within(self) -> None:
        """
        The share within a latency includes the bucket that ends there.
        """
        total = Total()
        total.add("OK", 10, 1.0, '{"0.1":8,"0.5":9,"+Inf":10}')

        assert 0.9 == total.within(timedelta(seconds=0.5))
        assert 0.8 == total.within(timedelta(seconds=0.1))


def test_ten_before_this(tmp_path: Path) -> None:
    """
    This run and the ten before it are stored, and no older ones.
    """
    with contextlib.closing(schema.open_writer(tmp_path / "console.sqlite")) as db:
        db.row_factory = sqlite3.Row
        started = [run_history.begin(db, 1_000_000 * number) for number in range(1, 15)]
        kept = [run["id"] for run in run_history.last(db)]

    assert started[:-12:-1] == kept
    assert 11 == len(kept)


async def test_follows_file(start: Start, tmp_path: Path) -> None:
    """
    Targets are read from the file: an instance on other ports replaces the previous one.
    """
    file = tmp_path / "scraped.json"

    def write(*targets: Target) -> None:
        part = tmp_path / "part"
        part.write_text(json.dumps([target.model_dump() for target in targets]))
        part.replace(file)

    first, second = Process(), Process()
    async with first.served() as before, second.served() as after:
        write(before)
        async with start(console_scrape_file=file, console_scrape_every=EVERY) as running:
            await scraped(running)
            write(after)
            async with asyncio.timeout(10):
                while [after] != [seen.target for seen in running.context.seen]:
                    await asyncio.sleep(0.02)
            await scraped(running)
            second.call(times=7)
            found = await method(running, 7)
            file.write_text("nonsense")
            second.call(times=3)
            await method(running, 10)
            alerts = (await running.get("overview"))["alerts"]

    assert 7 == found["calls"]
    assert [] == alerts


async def test_exemplars(start: Start) -> None:
    """
    Exemplars of a method link to stored traces, with failures marked.
    """
    process, batch = Process(openmetrics.generate_latest), Batch()
    slow, failed = batch.call().hex(), batch.call(code="UNAVAILABLE").hex()
    async with (
        process.served() as target,
        start(console_scrape=(target,), console_scrape_every=EVERY) as running,
    ):
        await running.take("traces", batch.request)
        process.call(trace=slow, seconds=0.3)
        process.call("UNAVAILABLE", trace=failed)
        process.call(trace="f" * 32)
        process.call(trace="no-trace-id", seconds=2.0)
        found = await method(running, 4)
        shown = (await running.get("metrics/survey.ListRequests", window="5m"))["exemplars"]

    assert 4 == found["calls"]
    assert {(slow, 300.0, False), (failed, 20.0, True)} == {
        (one["traceId"], one["durationMs"], one["failed"]) for one in shown
    }
