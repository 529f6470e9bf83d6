"""Prometheus and Alertmanager always; collector, traces, logs and Grafana in profiles."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from mesh.render.compose import envoys
from mesh.render.compose.workloads import hardened
from mesh.render.deployment import Deployment
from mesh.render.rules import scraping
from mesh.render.rules.scraping import Target

Service = dict[str, Any]
OBSERVABILITY = "../../observability"
PROFILE = "telemetry"
DAYS = 30
HOST = "host"
"""What Prometheus calls the machine below, whose node exporter it reads."""


def services() -> dict[str, Service]:
    """Return the services; each runs with the committed files of ``mesh/observability``."""
    return {
        "prometheus": _prometheus(),
        "alertmanager": _alertmanager(),
        "otel-collector": _backend(
            "docker.io/otel/opentelemetry-collector-contrib:0.139.0",
            ["--config=/etc/otelcol/otel-collector.yaml"],
            [_committed("collector/otel-collector.yaml", "/etc/otelcol")],
        ),
        "tempo": _backend(
            "docker.io/grafana/tempo:2.9.0",
            ["-config.file=/etc/tempo/tempo.yaml"],
            [_committed("tempo/tempo.yaml", "/etc/tempo"), "tempo:/var/tempo"],
        ),
        "jaeger": _backend(
            "docker.io/jaegertracing/jaeger:2.11.0",
            ["--config=/etc/jaeger/jaeger.yaml"],
            [_committed("jaeger/jaeger.yaml", "/etc/jaeger"), "jaeger:/var/lib/jaeger"],
        ),
        "loki": _backend(
            "docker.io/grafana/loki:3.5.7",
            ["-config.file=/etc/loki/loki.yaml"],
            [_committed("loki/loki.yaml", "/etc/loki"), "loki:/loki"],
        ),
        "grafana": _grafana(),
        "alloy": _alloy(),
    }


def volumes() -> dict[str, Any]:
    """Return the volumes."""
    names = ("prometheus", "alertmanager", "tempo", "jaeger", "loki", "grafana", "alloy")
    return {name: {} for name in names}


def files(deployed: Deployment) -> dict[str, str]:
    """Return what stands here alone: where this Prometheus looks."""
    return {
        "telemetry/prometheus.yaml": scraping.configuration(
            list(_targets(deployed)), alertmanager="alertmanager:9093", host=HOST
        )
    }


def _targets(deployed: Deployment) -> Iterator[Target]:
    for workload in deployed.workloads:
        name, proxy = workload.name, envoys.container(workload)
        yield Target("amarre", name, name, f"{name}:{workload.metrics_port}")
        yield Target("envoy", proxy, name, f"{proxy}:{envoys.STATS}")


def _committed(name: str, folder: str) -> str:
    """Return the mount of a file or folder of ``mesh/observability`` below *folder*."""
    return f"{OBSERVABILITY}/{name}:{folder}/{PurePosixPath(name).name}:ro"


def _prometheus() -> Service:
    return {
        "image": "docker.io/prom/prometheus:v3.7.3",
        "user": "65534:65534",
        "command": [
            "--config.file=/etc/prometheus/prometheus.yaml",
            "--storage.tsdb.path=/prometheus",
            f"--storage.tsdb.retention.time={DAYS}d",
            "--enable-feature=exemplar-storage",
            # The collector and Tempo hand in what they count.
            "--web.enable-remote-write-receiver",
        ],
        "volumes": [
            "./telemetry/prometheus.yaml:/etc/prometheus/prometheus.yaml:ro",
            _committed("prometheus/rules", "/etc/prometheus"),
            "prometheus:/prometheus",
        ],
        "networks": ["telemetry", "outside"],
        "extra_hosts": {HOST: "${AMARRE_HOST_ADDRESS:-host-gateway}"},
        **hardened("1G"),
    }


def _alertmanager() -> Service:
    return {
        "image": "docker.io/prom/alertmanager:v0.29.0",
        "user": "65534:65534",
        "command": [
            "--config.file=/etc/alertmanager/alertmanager.yaml",
            "--storage.path=/alertmanager",
        ],
        "volumes": [
            _committed("alertmanager/alertmanager.yaml", "/etc/alertmanager"),
            _committed("alertmanager/amarre.tmpl", "/etc/alertmanager"),
            "./secrets/alertmanager:/etc/alertmanager/secrets:ro",
            "alertmanager:/alertmanager",
        ],
        "networks": ["telemetry", "outside"],
        **hardened("128M"),
    }


def _backend(name: str, command: list[str], mounted: list[str]) -> Service:
    return {
        "image": name,
        "profiles": [PROFILE],
        "command": command,
        "volumes": mounted,
        "tmpfs": ["/tmp"],  # noqa: S108 - the container's own
        "networks": ["telemetry"],
        **hardened("512M"),
    }


def _grafana() -> Service:
    found = _backend(
        "docker.io/grafana/grafana:12.3.0",
        [],
        [
            _committed("grafana/provisioning", "/etc/grafana"),
            "grafana:/var/lib/grafana",
            _committed("grafana/dashboards", "/var/lib/grafana"),
        ],
    )
    del found["command"]
    found["environment"] = {
        "GF_AUTH_ANONYMOUS_ENABLED": "false",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_SECURITY_ADMIN_PASSWORD__FILE": "/run/secrets/grafana-password",
    }
    found["secrets"] = ["grafana-password"]
    # Reached by an SSH tunnel to the host; nothing but the edge is published to others.
    found["networks"] = ["telemetry", "outside"]
    found["ports"] = ["127.0.0.1:3300:3000"]
    return found


def _alloy() -> Service:
    """Return what brings the lines of containers, the proxies' among them, to Loki."""
    found = _backend(
        "docker.io/grafana/alloy:v1.11.3",
        ["run", "--storage.path=/var/lib/alloy", "/etc/alloy/config.alloy"],
        [
            _committed("alloy/config.alloy", "/etc/alloy"),
            "/var/run/docker.sock:/var/run/docker.sock:ro",
            "alloy:/var/lib/alloy",
        ],
    )
    found["profiles"] = ["container-logs"]
    return found
