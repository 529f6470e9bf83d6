"""The ``/metrics`` endpoint."""

import asyncio
import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from mesh.chassis import telemetry
from mesh.chassis.telemetry import clients, metrics, names, tracing
from mesh.chassis.testing import free_port
from mesh.contract import policy
from mesh.contract.model import LONGEST_CALL
from tests.mesh.chassis.telemetry import SAMPLED, TRACE, recorded

OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


def value(name: str, labels: Mapping[str, str]) -> float:
    return REGISTRY.get_sample_value(name, dict(labels)) or 0.0


@pytest.fixture
def exposed() -> str:
    address = f"127.0.0.1:{free_port()}"
    metrics.expose(address)
    return f"http://{address}/metrics"


def scrape(url: str) -> list[Sample]:
    answer = httpx.get(url, headers=OPENMETRICS, trust_env=False)
    families = text_string_to_metric_families(answer.text)  # type: ignore[no-untyped-call]
    return [sample for family in families for sample in family.samples]


class TestExposition:
    def test_exemplars(self, exposed: str) -> None:
        """A sampled call adds its trace and span to its bucket as an exemplar."""
        tracing.resume(SAMPLED)
        telemetry.RPC_SECONDS.labels("survey", "GetLink", "OK", "").observe(
            0.2, telemetry.exemplar()
        )
        tracing.resume("")

        (bucket,) = [
            sample
            for sample in scrape(exposed)
            if sample.name == f"{names.RPC_SERVER_DURATION}_bucket"
            and "0.25" == sample.labels["le"]
            and "GetLink" == sample.labels["method"]
            and "OK" == sample.labels["code"]
        ]
        assert bucket.exemplar
        assert {"trace_id": TRACE, "span_id": SAMPLED.split("-")[2]} == bucket.exemplar.labels

    def test_process(self, exposed: str) -> None:
        """CPU and memory of the process are included."""
        found = {sample.name for sample in scrape(exposed)}

        assert {"process_cpu_seconds_total", "process_resident_memory_bytes"} <= found

    @pytest.mark.parametrize("accept", [OPENMETRICS["accept"], "text/plain"])
    def test_as_prometheus_client_writes_it(self, accept: str) -> None:
        """The page equals that of prometheus-client, also when only some families have changed."""
        registry = CollectorRegistry()
        counter = Counter("refusals", "With labels.", ["limit"], registry=registry)
        seconds = Histogram("seconds", "With an exemplar.", registry=registry)
        Gauge("constant", "Never changes.", registry=registry).set(3)
        page = metrics._Page(registry)
        encode, content_type = choose_encoder(accept)
        sent: list[Any] = []
        for count in range(3):
            counter.labels("test").inc(count)
            seconds.observe(count, {"trace_id": f"{count:032x}"})
            start: Any = lambda *head: sent.append(head)  # noqa: E731 - WSGI's type is longer
            body = page({"HTTP_ACCEPT": accept}, start)
            assert encode(registry) == b"".join(body)
        assert [("200 OK", [("Content-Type", content_type)])] * 3 == sent

    def test_port_in_use(self, exposed: str) -> None:
        """An address in use is reported with what to do."""
        with pytest.raises(metrics.MetricsListenError, match="AMARRE_METRICS_LISTEN"):
            metrics.expose(exposed.removeprefix("http://").removesuffix("/metrics"))


class TestBuckets:
    def test_objectives(self) -> None:
        """
        Every latency objective of a contract is a bucket bound, so that it is counted exactly.
        """
        objectives = {
            method.objective.latency.total_seconds()
            for method in policy.load()
            if method.objective.latency <= LONGEST_CALL
        }

        assert objectives <= set(telemetry.LATENCY_BUCKETS)


class TestSaturation:
    async def test_loop_lag(self) -> None:
        """Work that blocks the event loop shows as lag."""
        before = value(f"{names.EVENT_LOOP_LAG}_sum", {})
        watch = asyncio.create_task(metrics.watch_loop())
        blocked_until = asyncio.get_running_loop().time() + metrics.LAG_SECONDS + 0.2
        await asyncio.sleep(0)
        while asyncio.get_running_loop().time() < blocked_until:
            pass
        async with asyncio.timeout(5):
            while value(f"{names.EVENT_LOOP_LAG}_sum", {}) - before < 0.15:
                await asyncio.sleep(0.01)
        watch.cancel()

    def test_active_users(self) -> None:
        """Users are counted once, however often they call."""
        users = metrics.ActiveUsers()
        for name in ("ada", "grace", "ada"):
            users.saw(name)

        (gauge,) = users.collect()
        assert [2] == [sample.value for sample in gauge.samples]

    def test_users_are_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A user who has not called for 15 minutes is no longer counted and uses no memory."""
        users = metrics.ActiveUsers()
        users.saw("ada")
        monkeypatch.setattr(metrics, "ACTIVE_SECONDS", -1.0)

        (gauge,) = users.collect()
        assert [0] == [sample.value for sample in gauge.samples]

    async def test_database(self, tmp_path: Path) -> None:
        """Statements are timed by kind, including failed ones, and create spans if sampled."""
        clients.watch_databases()
        selects = {"operation": "SELECT"}
        before = value(f"{names.DB_DURATION}_count", selects)
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/x.sqlite")
        with recorded() as spans:
            tracing.resume(SAMPLED)
            async with engine.connect() as connection:
                assert 1 == value(names.DB_CONNECTIONS, {})
                await connection.execute(text("select 'ada@example.org'"))
                with pytest.raises(OperationalError):
                    await connection.execute(text("select * from nowhere"))
            tracing.resume("")
        await engine.dispose()

        assert 2 == value(f"{names.DB_DURATION}_count", selects) - before
        assert 0 == value(names.DB_CONNECTIONS, {})
        common = {"db.system.name": "sqlite", "db.operation.name": "SELECT"}
        assert [common, {**common, "error.type": "OperationalError"}] == [
            dict(span.attributes or {}) for span in spans
        ]


class TestCertificate:
    def test_validity(self, svids: Path) -> None:
        """Start and end of the certificate's validity are included."""
        registry = CollectorRegistry()
        registry.register(metrics.Certificate(svids / "survey" / "tls.crt"))

        begins = registry.get_sample_value(names.CERTIFICATE_NOT_BEFORE)
        ends = registry.get_sample_value(names.CERTIFICATE_NOT_AFTER)
        now = dt.datetime.now(dt.UTC).timestamp()
        assert begins
        assert ends
        assert begins <= now < ends

    def test_no_certificate(self, tmp_path: Path) -> None:
        """A process without a certificate, next to its sidecar, does not report one."""
        assert [] == list(metrics.Certificate(tmp_path / "tls.crt").collect())


class TestSystemsOutside:
    async def test_outcomes(self) -> None:
        """Responses are distinguished by class, and from connection failures."""

        def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/away":
                raise httpx.ConnectError("away")
            return httpx.Response(200)

        transport = httpx.MockTransport(answer)
        async with telemetry.http_client("elsewhere", transport=transport) as client:
            await client.get("http://elsewhere.example/")
            with pytest.raises(httpx.ConnectError):
                await client.get("http://elsewhere.example/away")

        counts = [
            value(f"{names.HTTP_CLIENT_DURATION}_count", {"backend": "elsewhere", "status": status})
            for status in ("2xx", "error")
        ]
        assert [1, 1] == counts
