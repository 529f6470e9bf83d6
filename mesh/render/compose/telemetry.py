"""Prometheus and Alertmanager always; collector, traces, logs and Grafana in a profile."""

from typing import Any

from mesh import topology
from mesh.render.compose.workloads import hardened
from mesh.render.manifest import text
from mesh.render.rules import scraping
from mesh.render.rules.scraping import Target

Service = dict[str, Any]
OBSERVABILITY = "../../observability"
PROFILE = "telemetry"
DAYS = 30


def services() -> dict[str, Service]:
    """Return the services."""
    return {
        "prometheus": _prometheus(),
        "alertmanager": _alertmanager(),
        "otel-collector": _backend(
            "docker.io/otel/opentelemetry-collector-contrib:0.139.0",
            ["--config=/etc/otelcol/collector.yaml"],
            ["./telemetry/collector.yaml:/etc/otelcol/collector.yaml:ro"],
        ),
        "tempo": _backend(
            "docker.io/grafana/tempo:2.9.0",
            ["-config.file=/etc/tempo/tempo.yaml"],
            ["./telemetry/tempo.yaml:/etc/tempo/tempo.yaml:ro", "tempo:/var/tempo"],
        ),
        "loki": _backend(
            "docker.io/grafana/loki:3.5.7",
            ["-config.file=/etc/loki/loki.yaml"],
            ["./telemetry/loki.yaml:/etc/loki/loki.yaml:ro", "loki:/loki"],
        ),
        "grafana": _grafana(),
    }


def volumes() -> dict[str, Any]:
    """Return the volumes."""
    return {name: {} for name in ("prometheus", "alertmanager", "tempo", "loki", "grafana")}


def files() -> dict[str, str]:
    """Return the configuration of what stands here alone."""
    return {
        "telemetry/prometheus.yaml": scraping.configuration(
            list(_targets()), alertmanager="alertmanager:9093"
        ),
        "telemetry/collector.yaml": text(
            "Takes OTLP from workloads and proxies and hands traces and logs on; metrics are "
            "Prometheus's to fetch.",
            _collector(),
        ),
        "telemetry/tempo.yaml": text("Traces of a fortnight on one host.", _tempo()),
        "telemetry/loki.yaml": text("Logs of 30 days on one host.", _loki()),
        "telemetry/datasources.yaml": text("Where Grafana looks.", _datasources()),
    }


def _targets() -> list[Target]:
    return [
        Target("amarre", p.name, p.identity, f"{p.name}:{topology.PORT_BASE + p.metrics}")
        for p in topology.PROCESSES
        if p.metrics and p.identity
    ]


def _prometheus() -> Service:
    return {
        "image": "docker.io/prom/prometheus:v3.7.3",
        "user": "65534:65534",
        "command": [
            "--config.file=/etc/prometheus/prometheus.yaml",
            "--storage.tsdb.path=/prometheus",
            f"--storage.tsdb.retention.time={DAYS}d",
            "--enable-feature=exemplar-storage",
        ],
        "volumes": [
            "./telemetry/prometheus.yaml:/etc/prometheus/prometheus.yaml:ro",
            f"{OBSERVABILITY}/prometheus/rules:/etc/prometheus/rules:ro",
            "prometheus:/prometheus",
        ],
        "networks": ["telemetry"],
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
            *(
                f"{OBSERVABILITY}/alertmanager/{name}:/etc/alertmanager/{name}:ro"
                for name in ("alertmanager.yaml", "amarre.tmpl")
            ),
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
        "docker.io/grafana/grafana-oss:12.3.0",
        [],
        [
            "./telemetry/datasources.yaml:/etc/grafana/provisioning/datasources/amarre.yaml:ro",
            "grafana:/var/lib/grafana",
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


def _collector() -> dict[str, Any]:
    return {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": "0.0.0.0:4317"}}}},
        "processors": {
            "memory_limiter": {
                "check_interval": "1s",
                "limit_percentage": 75,
                "spike_limit_percentage": 20,
            },
            "batch": {},
        },
        "exporters": {
            "otlp/tempo": {"endpoint": "tempo:4317", "tls": {"insecure": True}},
            "otlphttp/loki": {"endpoint": "http://loki:3100/otlp"},
            "debug": {"verbosity": "basic"},
        },
        "service": {
            "telemetry": {"logs": {"level": "warn"}},
            "pipelines": {
                "traces": _pipeline("otlp/tempo"),
                "logs": _pipeline("otlphttp/loki"),
                "metrics": _pipeline("debug"),
            },
        },
    }


def _pipeline(exporter: str) -> dict[str, Any]:
    return {
        "receivers": ["otlp"],
        "processors": ["memory_limiter", "batch"],
        "exporters": [exporter],
    }


def _tempo() -> dict[str, Any]:
    return {
        "server": {"http_listen_port": 3200},
        "distributor": {
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": "0.0.0.0:4317"}}}}
        },
        "compactor": {"compaction": {"block_retention": "336h"}},
        "storage": {
            "trace": {
                "backend": "local",
                "wal": {"path": "/var/tempo/wal"},
                "local": {"path": "/var/tempo/blocks"},
            }
        },
    }


def _loki() -> dict[str, Any]:
    return {
        "auth_enabled": False,
        "server": {"http_listen_port": 3100},
        "common": {
            "path_prefix": "/loki",
            "replication_factor": 1,
            "ring": {"kvstore": {"store": "inmemory"}},
            "storage": {"filesystem": {"chunks_directory": "/loki/chunks"}},
        },
        "schema_config": {
            "configs": [
                {
                    "from": "2026-01-01",
                    "store": "tsdb",
                    "object_store": "filesystem",
                    "schema": "v13",
                    "index": {"prefix": "index_", "period": "24h"},
                }
            ]
        },
        "compactor": {
            "working_directory": "/loki/compactor",
            "retention_enabled": True,
            "delete_request_store": "filesystem",
        },
        "limits_config": {"retention_period": f"{DAYS * 24}h", "allow_structured_metadata": True},
        "analytics": {"reporting_enabled": False},
    }


def _datasources() -> dict[str, Any]:
    def source(name: str, kind: str, url: str, **rest: Any) -> dict[str, Any]:
        return {"name": name, "uid": kind, "type": kind, "access": "proxy", "url": url, **rest}

    to_trace = {"name": "trace_id", "datasourceUid": "tempo"}
    return {
        "apiVersion": 1,
        "datasources": [
            source(
                "Prometheus",
                "prometheus",
                "http://prometheus:9090",
                isDefault=True,
                jsonData={"exemplarTraceIdDestinations": [to_trace]},
            ),
            source("Tempo", "tempo", "http://tempo:3200"),
            source("Loki", "loki", "http://loki:3100"),
        ],
    }
