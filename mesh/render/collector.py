"""
The OpenTelemetry Collector: tail sampling of errors and slow calls, and redaction.

Processes sample at the start of a trace and redact their telemetry; the collector does both again,
for other senders, with as much of the redaction rule as its patterns can express.
"""

from typing import Any

from mesh.chassis.telemetry import names
from mesh.contract import redaction_re2
from mesh.contract.credential_names import personal_names
from mesh.render.yaml_text import document

Files = dict[str, str]

_FIXED = (
    *(names.RPC_SYSTEM, names.RPC_METHOD, names.RPC_STATUS, names.CALLER, names.CALLER_ID),
    *(names.HTTP_METHOD, names.HTTP_ROUTE, names.HTTP_STATUS, names.URL_TEMPLATE, names.POLICY),
    *(names.SERVER_PORT, names.PEER, names.PEER_NAME, names.DB_SYSTEM, names.DB_OPERATION),
    # Envoy's.
    *("component", "node_id", "zone", "downstream_cluster", "upstream_cluster", "response_flags"),
    *("upstream_cluster.name", "http.method", "http.protocol", "http.status_code"),
    *("grpc.status_code", "request_size", "response_size", "envoy.details"),
    # Resources.
    *("service.name", "service.namespace", "service.version", "service.instance.id"),
    *("deployment.environment.name", "telemetry.sdk.language", "telemetry.sdk.name"),
    "telemetry.sdk.version",
)
"""Attributes whose values come from a fixed set, most of those of a span. To search them for
credentials would take most of the collector's time."""
SLOW_MILLISECONDS = 1000
SPANS_A_SECOND = 500
OWN_METRICS = 8888


def render() -> Files:
    """Return the configuration of the collector, contrib distribution."""
    return {
        "otel-collector.yaml": document(
            "Receives OTLP, keeps errors and slow calls, redacts, batches, exports.\n"
            "Rendered by `amarre render collector`; needs the contrib distribution.",
            configuration(),
        )
    }


def configuration() -> dict[str, Any]:
    """Return the configuration of the collector."""
    return {
        "extensions": {"health_check": {"endpoint": "0.0.0.0:13133"}},
        "receivers": {
            "otlp": {
                "protocols": {
                    "grpc": {"endpoint": "0.0.0.0:4317", "max_recv_msg_size_mib": 8},
                    "http": {"endpoint": "0.0.0.0:4318"},
                }
            }
        },
        "processors": _processors(),
        "exporters": {
            "otlp_grpc/tempo": {"endpoint": "tempo:4317", "tls": {"insecure": True}},
            "otlp_grpc/jaeger": {"endpoint": "jaeger:4317", "tls": {"insecure": True}},
            "otlp_http/loki": {"endpoint": "http://loki:3100/otlp"},
            "prometheus_remote_write": {
                "endpoint": "http://prometheus:9090/api/v1/write",
                "resource_constant_labels": {"included": ["*"]},
            },
        },
        "service": {
            "extensions": ["health_check"],
            "telemetry": {"metrics": {"readers": [_OWN]}},
            "pipelines": {
                "traces": _pipeline("tail_sampling", to=["otlp_grpc/tempo", "otlp_grpc/jaeger"]),
                "logs": _pipeline(to=["otlp_http/loki"]),
                "metrics": _pipeline(to=["prometheus_remote_write"]),
            },
        },
    }


_OWN = {"pull": {"exporter": {"prometheus": {"host": "0.0.0.0", "port": OWN_METRICS}}}}
"""Its own metrics, such as what it could not deliver, for Prometheus to scrape."""


def _processors() -> dict[str, Any]:
    return {
        # First, so that overload is rejected before processing.
        "memory_limiter": {
            "check_interval": "1s",
            "limit_percentage": 80,
            "spike_limit_percentage": 20,
        },
        "tail_sampling": {
            "decision_wait": "10s",
            "num_traces": 50_000,
            "policies": [
                {
                    "name": "errors",
                    "type": "status_code",
                    "status_code": {"status_codes": ["ERROR"]},
                },
                {
                    "name": "slow",
                    "type": "latency",
                    "latency": {"threshold_ms": SLOW_MILLISECONDS},
                },
                {
                    "name": "late",
                    "type": "boolean_attribute",
                    "boolean_attribute": {"key": names.LATE, "value": True},
                },
                # These traces were already sampled at their start.
                {
                    "name": "the-rest",
                    "type": "rate_limiting",
                    "rate_limiting": {"spans_per_second": SPANS_A_SECOND},
                },
            ],
        },
        "attributes/sensitive": {
            "actions": [
                *({"key": key, "action": "delete"} for key in sorted(personal_names())),
                {"pattern": redaction_re2.PERSONS, "action": "delete"},
            ]
        },
        "redaction": {
            "allow_all_keys": True,
            "ignored_keys": [*_FIXED],
            "blocked_key_patterns": [*redaction_re2.KEYS],
            "blocked_values": [*redaction_re2.TEXTS],
            "summary": "silent",
        },
        "batch": {"timeout": "2s", "send_batch_size": 4096, "send_batch_max_size": 8192},
    }


def _pipeline(*sampling: str, to: list[str]) -> dict[str, Any]:
    redacting = ["attributes/sensitive", "redaction"]
    return {
        "receivers": ["otlp"],
        "processors": ["memory_limiter", *sampling, *redacting, "batch"],
        "exporters": to,
    }
