"""Logs, metrics and the pseudonym under which they speak of a user."""

import hashlib
import hmac
import logging
import secrets
import sys
from pathlib import Path

import structlog
from prometheus_client import Counter, Gauge, Histogram, start_http_server

from mesh.chassis import call
from mesh.chassis.config import MeshSettings

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds; around the objectives of the contracts, which lie between 50 ms and 5 s."""

RPC_SECONDS = Histogram(
    "amarre_rpc_server_duration_seconds",
    "How long calls took at the server.",
    ["service", "method", "code", "reason"],
    buckets=LATENCY_BUCKETS,
)
RPC_IN_FLIGHT = Gauge("amarre_rpc_server_in_flight", "Calls being served.", ["service"])
REFUSALS = Counter(
    "amarre_refusals_total", "Calls refused by policy.", ["service", "method", "reason"]
)

_pseudonym_key = secrets.token_bytes(32)


def start(service: str, settings: MeshSettings) -> None:
    """Set up logs, and metrics where settings give them an address, for this process."""
    global _pseudonym_key
    if settings.pseudonym_key_file is not None:
        _pseudonym_key = Path(settings.pseudonym_key_file).read_bytes()
    configure_logs(service, settings.instance or service, settings.log_level)
    if settings.metrics_listen:
        host, _, port = settings.metrics_listen.rpartition(":")
        start_http_server(int(port), host)


def configure_logs(service: str, instance: str, level: str) -> None:
    """Write JSON lines to stdout: ours and, from WARNING up, those of libraries."""

    def add_names(
        _: object, __: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event.setdefault("service", service)
        event.setdefault("instance", instance)
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        add_names,
        _add_call,
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=structlog.processors.JSONRenderer(), foreign_pre_chain=shared
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _add_call(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    context = call.traceparent.get()
    if context:
        event.setdefault("trace_id", trace_id(context))
    current = call.current()
    if current is not None:
        event.setdefault("rpc", current.method)
        event.setdefault("caller", current.caller.name)
        if current.user is not None:
            event.setdefault("user", pseudonym(current.user.id))
    return event


def trace_id(traceparent: str) -> str:
    """Return the trace id of a W3C ``traceparent``; empty when it is none."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else ""


def pseudonym(user_id: str) -> str:
    """Return what stands for a user in logs, spans and metrics: 16 hexadecimal characters."""
    return hmac.new(_pseudonym_key, user_id.encode(), hashlib.sha256).hexdigest()[:16]
