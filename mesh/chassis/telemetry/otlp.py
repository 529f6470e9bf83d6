"""Export of traces, logs and metrics over OTLP, configured by the standard ``OTEL_`` variables.

Telemetry is exported in batches, from bounded queues, on separate threads: if the collector is
unavailable, telemetry is dropped and the process neither waits nor fails. The SDK is imported only
if there is an endpoint.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from structlog.typing import EventDict

from mesh.chassis.channel import NO_PROXY
from mesh.chassis.otel_environment import endpoint as otlp_endpoint
from mesh.chassis.otel_environment import (
    headers,
    is_compressed,
    is_exported,
    unknown_exporters,
)
from mesh.chassis.telemetry import logs, names, tracing
from mesh.contract import redaction

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

_FIELDS_ELSEWHERE = frozenset({"event", "level", "time", "trace_id", "span_id"})
_STOP_SECONDS = 2.0
_stops: list[Callable[[], None]] = []


def start(service: str, instance: str, env: str) -> None:
    """Start exporting each signal that has an endpoint; log a variable that cannot be used."""
    starters = {"traces": _start_traces, "logs": _start_logs, "metrics": _start_metrics}
    for signal in starters:
        for name in unknown_exporters(signal, os.environ):
            logging.getLogger("telemetry").warning("unknown exporter of %s: %s", signal, name)
    wanted = [signal for signal in starters if is_exported(signal, os.environ)]
    if not wanted:
        return
    resource = _resource(service, instance, env)
    for signal in wanted:
        try:
            starters[signal](resource, _options(signal))
        except Exception as exc:  # an invalid variable must not prevent the service from serving
            logging.getLogger("telemetry").warning("%s are not exported: %s", signal, exc)


def start_logs(service: str, instance: str, env: str, environment: Mapping[str, str]) -> None:
    """Export only log lines, as the ``OTEL_`` variables in *environment* say."""
    if is_exported("logs", environment):
        _start_logs(_resource(service, instance, env), _options("logs", environment))


def stop() -> None:
    """Flush the queues for at most 2 seconds in total, and stop the threads."""
    tracing.use(None)
    logs.also_emit(None)
    threads = [threading.Thread(target=each, daemon=True) for each in _stops]
    _stops.clear()
    for thread in threads:
        thread.start()
    ends_at = time.monotonic() + _STOP_SECONDS
    for thread in threads:
        thread.join(max(0.0, ends_at - time.monotonic()))


def _resource(service: str, instance: str, env: str) -> "Resource":
    from opentelemetry.sdk.resources import Resource

    # As specified, these take precedence over OTEL_RESOURCE_ATTRIBUTES, which only adds others.
    ours = {
        "service.name": os.environ.get("OTEL_SERVICE_NAME") or service,
        "service.namespace": "amarre",
        "service.instance.id": instance,
        "service.version": metadata.version("amarre-mesh"),
        "deployment.environment.name": env,
    }
    found = Resource.create(ours, names.SCHEMA)
    return Resource(redaction.value("", dict(found.attributes)), found.schema_url)


def _options(signal: str, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the options of the exporter of *signal*.

    Raises:
        OtelVariableError: The endpoint or a header cannot be used.
    """
    import grpc

    where = otlp_endpoint(environment, signal)
    if where is None:
        return {}
    gzip = is_compressed(environment, signal)
    # A collector on this machine is never behind a proxy, regardless of http_proxy.
    options = NO_PROXY if where.is_loopback else None
    return {
        "endpoint": str(where),
        "insecure": not where.tls,
        "headers": headers(environment, signal),
        "compression": grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression,
        "channel_options": options,
    }


def _start_traces(resource: "Resource", options: dict[str, Any]) -> None:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBasedTraceIdRatio

    from mesh.chassis.telemetry.conventions import Conventions
    from mesh.chassis.telemetry.redacting import RedactingExporter

    sampler = ParentBasedTraceIdRatio(tracing.share())
    provider = TracerProvider(resource=resource, sampler=sampler, shutdown_on_exit=False)
    roots = TracerProvider(resource=resource, sampler=ALWAYS_ON, shutdown_on_exit=False)
    exporter = RedactingExporter(OTLPSpanExporter(**options))
    processor = Conventions(BatchSpanProcessor(exporter))
    for each in (provider, roots):
        each.add_span_processor(processor)
    # The global provider, so that instrumentations of libraries and of users' own code nest.
    trace.set_tracer_provider(provider)
    version = metadata.version("amarre-mesh")
    tracing.use(
        *(
            each.get_tracer("mesh.chassis", version, schema_url=names.SCHEMA)
            for each in (provider, roots)
        )
    )
    _stops.append(provider.shutdown)


def _start_logs(resource: "Resource", options: dict[str, Any]) -> None:
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(**options)))
    logger = provider.get_logger("mesh.chassis")

    def emit(event: EventDict) -> None:
        logger.emit(**_record(event))

    logs.also_emit(emit)
    _stops.append(provider.shutdown)


def _record(event: EventDict) -> dict[str, Any]:
    from opentelemetry._logs.severity import SeverityNumber

    level = str(event.get("level", "info"))
    return {
        "severity_text": level.upper(),
        "severity_number": {
            "debug": SeverityNumber.DEBUG,
            "warning": SeverityNumber.WARN,
            "error": SeverityNumber.ERROR,
            "critical": SeverityNumber.FATAL,
        }.get(level, SeverityNumber.INFO),
        "body": str(event.get("event", "")),
        "attributes": {
            key: value if isinstance(value, str | bool | int | float) else str(value)
            for key, value in event.items()
            if key not in _FIELDS_ELSEWHERE and value is not None
        },
    }


def _start_metrics(resource: "Resource", options: dict[str, Any]) -> None:
    from mesh.chassis.telemetry.otlp_metrics import MetricsPusher

    pusher = MetricsPusher(resource, options)
    pusher.start()
    _stops.append(pusher.stop)
