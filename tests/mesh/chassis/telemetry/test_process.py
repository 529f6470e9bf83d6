"""A whole process: its log lines, its OTLP export, and behaviour without a collector."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mesh.chassis.otel_environment import is_exported
from mesh.chassis.telemetry import names, otlp_metrics
from mesh.chassis.testing import free_port
from tests.mesh.chassis.telemetry import TRACE, Collector, collecting

MODULE = "tests.mesh.chassis.telemetry.process"


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", MODULE],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    """The log lines of a process without OTLP export."""
    ended = run(AMARRE_INSTANCE="survey-2")
    assert 0 == ended.returncode
    return [json.loads(line) for line in ended.stdout.splitlines()]


def line(lines: list[dict[str, Any]], event: str) -> dict[str, Any]:
    (found,) = [each for each in lines if event == each["event"]]
    return found


class TestLogs:
    def test_fields(self, lines: list[dict[str, Any]]) -> None:
        """Every line names its process and its trace."""
        for each in lines:
            assert ("survey", "survey-2", TRACE) == (
                each["service"],
                each["instance"],
                each["trace_id"],
            )

    def test_kinds(self, lines: list[dict[str, Any]]) -> None:
        """One field distinguishes access, error and event lines."""
        kinds = {event: line(lines, event)["kind"] for event in ("call", "session opened")}
        kinds["failed"] = line(lines, "handler failed")["kind"]

        assert {"call": "access", "session opened": "event", "failed": "error"} == kinds

    def test_nothing_personal(self, lines: list[dict[str, Any]]) -> None:
        """
        E-mail addresses appear nowhere: in fields, texts, messages, tracebacks or library logs.
        """
        assert "@example.org" not in json.dumps(lines)
        assert "from [redacted] to me" == line(lines, "call")["note"]
        assert {"language": "en"} == line(lines, "asked")["request"]
        assert "RuntimeError: [redacted] is unknown" in line(lines, "handler failed")["exception"]

    def test_exporters_that_complain(self, lines: list[dict[str, Any]]) -> None:
        """Repeated exporter warnings are written once a minute."""
        assert "opentelemetry.exporter" == line(lines, "away")["logger"]


@pytest.fixture(scope="module")
def collected() -> Iterator[Collector]:
    """The OTLP export of all three signals of a process."""
    port = free_port()
    with collecting(port) as collector:
        ended = run(
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_RESOURCE_ATTRIBUTES="team=mesh,deployment.environment.name=staging",
            OTEL_EXPORTER_OTLP_HEADERS="a=b;c, D=Bearer%20x%0a",
            AMARRE_INSTANCE="survey-2",
        )
        assert 0 == ended.returncode, ended.stderr
        assert collector.wait_for("traces", "logs", "metrics")
        yield collector


class TestOtlp:
    def test_resource(self, collected: Collector) -> None:
        """
        Every signal identifies the process in the same way, with the standard variables'
        attributes.
        """
        for resources in collected.resources.values():
            facts = {a.key: a.value.string_value for a in resources[0].resource.attributes}
            assert (
                facts.items()
                >= {
                    "service.name": "survey",
                    "service.namespace": "amarre",
                    "service.instance.id": "survey-2",
                    "deployment.environment.name": "development",
                    "team": "mesh",
                }.items()
            )

    def test_headers(self, collected: Collector) -> None:
        """Every signal is sent with the headers as the mesh reads them."""
        for metadata in collected.metadata.values():
            assert metadata.items() >= {"a": "b;c", "d": "Bearer x"}.items()

    def test_spans(self, collected: Collector) -> None:
        """Spans are flushed before the process exits, and state their conventions."""
        (scope,) = collected.resources["traces"][0].scope_spans
        (span,) = scope.spans

        assert scope.schema_url == collected.resources["traces"][0].schema_url == names.SCHEMA

        assert ("told", TRACE) == (span.name, span.trace_id.hex())

    def test_logs(self, collected: Collector) -> None:
        """
        Log lines are exported as written: redacted, with their trace, without those of exporters.
        """
        records = [
            record
            for resource in collected.resources["logs"]
            for scope in resource.scope_logs
            for record in scope.log_records
        ]
        bodies = [record.body.string_value for record in records]

        assert "session opened" in bodies
        assert "away" not in bodies
        assert {TRACE} == {record.trace_id.hex() for record in records}
        assert b"@example.org" not in b"".join(r.SerializeToString() for r in records)

    def test_metrics(self, collected: Collector) -> None:
        """
        The metrics of /metrics are exported too, with histogram buckets, units and exemplars.
        """
        metrics = {
            metric.name: metric
            for resource in collected.resources["metrics"]
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
        (point,) = metrics["amarre_rpc_server_duration_seconds"].histogram.data_points
        bucket = list(point.explicit_bounds).index(0.25)

        assert (1, 1) == (point.count, point.bucket_counts[bucket])
        assert len(point.explicit_bounds) + 1 == len(point.bucket_counts)
        (exemplar,) = point.exemplars
        assert TRACE == exemplar.trace_id.hex()
        assert any(exemplar.span_id)
        assert "s" == metrics["amarre_rpc_server_duration_seconds"].unit
        assert "By" == metrics["process_resident_memory_bytes"].unit
        assert metrics["process_cpu_seconds_total"].sum.is_monotonic
        assert metrics["process_resident_memory_bytes"].gauge.data_points[0].as_double > 0


class TestNobodyListens:
    def test_unavailable(self) -> None:
        """Without a collector, a process works and exits promptly."""
        started = time.monotonic()
        ended = run(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")

        assert 0 == ended.returncode, ended.stderr
        assert "session opened" in ended.stdout
        assert time.monotonic() - started < 8

    def test_hangs(self) -> None:
        """A collector that accepts connections but never responds does not delay the exit."""
        with socket.create_server(("127.0.0.1", free_port())) as silent:
            started = time.monotonic()
            ended = run(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")

        assert 0 == ended.returncode, ended.stderr
        assert time.monotonic() - started < 8

    def test_wrong_variable(self) -> None:
        """An unusable exporter variable is reported, and the process serves."""
        ended = run(
            OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_EXPORTER_OTLP_TIMEOUT="soon"
        )

        assert 0 == ended.returncode, ended.stderr
        assert "traces are not exported" in ended.stdout

    def test_metrics_port_in_use(self) -> None:
        """A /metrics port in use stops the start with one message."""
        with socket.create_server(("127.0.0.1", free_port())) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            ended = run(AMARRE_METRICS_LISTEN=address)

        assert 2 == ended.returncode
        (said,) = [json.loads(line) for line in ended.stdout.splitlines()]
        assert f"Cannot serve /metrics on '{address}'" in said["message"]


class TestVariables:
    @pytest.mark.parametrize(
        ("environment", "exported"),
        [
            pytest.param({}, False, id="no endpoint"),
            pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, True, id="for all"),
            pytest.param({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317"}, True, id="own"),
            pytest.param({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://c:4317"}, False, id="other"),
            pytest.param(
                {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_TRACES_EXPORTER": "none"},
                False,
                id="none",
            ),
            pytest.param(
                {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_SDK_DISABLED": "true"},
                False,
                id="disabled",
            ),
        ],
    )
    def test_traces(self, environment: dict[str, str], exported: bool) -> None:
        """The standard variables apply per signal."""
        assert exported == is_exported("traces", environment)

    @pytest.mark.parametrize(
        ("milliseconds", "seconds"), [("5000", 5.0), ("", 60.0), ("soon", 60.0)]
    )
    def test_interval(self, milliseconds: str, seconds: float) -> None:
        """
        Metrics are exported at the interval of the standard variable, by default once a minute.
        """
        assert seconds == otlp_metrics.interval(milliseconds)
