"""
The OpenTelemetry Collector: tail sampling of errors and slow calls, and redaction.

Processes sample at the start of a trace and redact their telemetry; the collector does both again,
for other senders.
"""

from typing import Any

from mesh.chassis.telemetry import names
from mesh.contract.credential_names import personal_names
from mesh.render.yaml_text import document

Files = dict[str, str]

SLOW_MILLISECONDS = 1000
SPANS_A_SECOND = 500
OWN_METRICS = 8888
E_MAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}"
TOKEN = r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"  # noqa: S105 - its form, not one
_NAMES = (
    r"(?:password|passwd|passphrase|secret|token|(?:api|access|private)[._-]?key|authorization"
    r"|cookie|credential|jwt)"
)
"""How names of credentials end, in any case style; the console's own rule is finer."""
CREDENTIAL_KEY = rf"(?i){_NAMES}$"
CREDENTIALS = (
    rf"(?i){_NAMES}s?=[^\s&;,]{{4,}}",
    rf"(?i){_NAMES}s?\\?[\"']\s*:\s*\\?[\"'][^\"']+",
    r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{12,}",
    r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/@\"']+@",
)
"""Credentials in texts: pairs, JSON, authorization schemes, URLs. RE2 has no lookahead."""
REDCAP_TOKEN = r"\b[0-9A-F]{32}\b|\b[0-9A-F]{64}\b"  # noqa: S105


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
            "actions": [{"key": key, "action": "delete"} for key in sorted(personal_names())]
        },
        "redaction": {
            "allow_all_keys": True,
            # Masks numbers as well, hence no plural: gen_ai.usage.input_tokens is a number.
            "blocked_key_patterns": [CREDENTIAL_KEY],
            # The longest match first, so that no part of a credential is left.
            "blocked_values": [*CREDENTIALS, TOKEN, E_MAIL, REDCAP_TOKEN],
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
