"""Telemetry variables apply to proxies and processes alike."""

from pathlib import Path

import pytest

from mesh.chassis import otel_environment
from mesh.local.data_folder import DataFolder
from mesh.local.processes.plan import Options, Plan, PlanError
from mesh.render.envoy import Collector, Telemetry

VARIABLES = {
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": "0.05",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4317",
    "OTEL_SERVICE_NAME": "my-shell",
}


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "OTEL_SDK_DISABLED", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        monkeypatch.delenv(name, raising=False)


def plan(tmp_path: Path, *, direct: bool = False) -> Plan:
    return Plan(DataFolder(tmp_path), Options(6000, direct=direct))


def test_one_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampler and endpoint reach every proxy and every process; a service's name reaches none."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    units = plan(tmp_path).units
    proxies = [unit.proxy for unit in units if unit.proxy]
    processes = [unit for unit in units if not unit.proxy and unit.process.identity]
    assert proxies
    collector = Collector("localhost:4317")
    assert {p.telemetry for p in proxies} == {
        Telemetry(traces=collector, logs=collector, sampling_percent=5.0)
    }
    for unit in processes:
        assert unit.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://localhost:4317"
        assert otel_environment.sampling_share(unit.environment, 1.0) == 0.05
        assert "OTEL_SERVICE_NAME" not in unit.environment


@pytest.mark.parametrize("endpoint", [None, "", " "])
def test_defaults(endpoint: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without variables, or if they are blank, everything is sampled and sent to the console."""
    if endpoint is not None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    proxies = [unit.proxy for unit in plan(tmp_path).units if unit.proxy]
    console = Collector("127.0.0.1:6021")
    assert {p.telemetry for p in proxies} == {Telemetry(traces=console, logs=console)}
    variable = "OTEL_EXPORTER_OTLP_ENDPOINT"
    exported = [u.environment[variable] for u in plan(tmp_path).units if variable in u.environment]
    assert set(exported) == {"http://127.0.0.1:6021"}


@pytest.mark.parametrize(("backend", "exporter"), [("", "none"), ("http://localhost:4317", "")])
def test_metrics_have_one_way(
    backend: str, exporter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics are not pushed to the console, which scrapes them, but to any other backend."""
    if backend:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend)
    for unit in plan(tmp_path).units:
        if unit.process.identity and not unit.proxy:
            assert exporter == unit.environment.get("OTEL_METRICS_EXPORTER", "")


def test_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that disable telemetry of processes also disable that of proxies."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    proxies = [unit.proxy for unit in plan(tmp_path).units if unit.proxy]
    assert {p.telemetry for p in proxies} == {Telemetry()}


CONSOLE, OTHER = Collector("127.0.0.1:6021"), Collector("b:2")


@pytest.mark.parametrize(
    ("variables", "traces", "logs"),
    [
        pytest.param({"OTEL_LOGS_EXPORTER": "none"}, CONSOLE, None, id="no logs"),
        pytest.param({"OTEL_TRACES_EXPORTER": "none"}, None, CONSOLE, id="no traces"),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "b:2"}, OTHER, CONSOLE, id="traces elsewhere"
        ),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "b:2", "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "k=v"},
            CONSOLE,
            Collector("b:2", (("k", "v"),)),
            id="logs elsewhere",
        ),
    ],
)
def test_signals(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    traces: Collector | None,
    logs: Collector | None,
) -> None:
    """Each signal of a proxy has its own switch, endpoint and headers, as those of a process."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxies = [unit.proxy for unit in plan(tmp_path).units if unit.proxy]
    assert {(p.telemetry.traces, p.telemetry.logs) for p in proxies} == {(traces, logs)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:abc", id="port"),
        pytest.param("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otel.example:4317", id="TLS"),
        pytest.param("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://otel.example:4317", id="logs"),
        pytest.param("OTEL_EXPORTER_OTLP_HEADERS", "a=b%25c", id="a percent sign"),
        pytest.param("OTEL_TRACES_SAMPLER_ARG", "often", id="share"),
    ],
)
def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Variables that not all would honour are rejected before anything starts."""
    monkeypatch.setenv(name, value)
    with pytest.raises(PlanError):
        plan(tmp_path)
