"""Logs, metrics and traces of a process, and pseudonyms of users.

names       names of metrics, attributes and log kinds
logs        JSON lines of five kinds, redacted
metrics     metrics of every process, and ``/metrics``
tracing     spans for sampled calls, errors and slow calls
clients     databases and HTTP back-ends outside the mesh
otlp        export of all signals, configured by the standard variables
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from prometheus_client import REGISTRY

from mesh.chassis import channel
from mesh.chassis.config import MeshSettings
from mesh.chassis.telemetry import sdk_environment

sdk_environment.correct(os.environ)  # before OpenTelemetry is imported

from mesh.chassis.telemetry import clients, otlp, tracing
from mesh.chassis.telemetry.clients import http_client
from mesh.chassis.telemetry.logs import configure_logs, is_logged, kind_of
from mesh.chassis.telemetry.metrics import (
    ACTIVE_USERS,
    LATENCY_BUCKETS,
    REFUSALS,
    RPC_CALLS,
    RPC_CLIENT_SECONDS,
    RPC_IN_FLIGHT,
    RPC_SECONDS,
    Certificate,
    MetricsListenError,
    expose,
    watch_loop,
)
from mesh.chassis.telemetry.pseudonym import load_key, pseudonym
from mesh.chassis.telemetry.rpc import ChannelTelemetry
from mesh.chassis.telemetry.tracing import exemplar, new_traceparent, trace_id

__all__ = [
    "ACTIVE_USERS",
    "LATENCY_BUCKETS",
    "REFUSALS",
    "RPC_CALLS",
    "RPC_CLIENT_SECONDS",
    "RPC_IN_FLIGHT",
    "RPC_SECONDS",
    "MetricsListenError",
    "configure_logs",
    "exemplar",
    "http_client",
    "is_logged",
    "kind_of",
    "new_traceparent",
    "pseudonym",
    "running",
    "start",
    "trace_id",
]

channel.instrument(ChannelTelemetry())


def start(service: str, settings: MeshSettings) -> None:
    """Set up logs, traces and, if settings give an address, metrics of this process.

    Raises:
        MetricsListenError: The address of ``/metrics`` cannot be bound.
    """
    instance = settings.instance or service
    load_key(settings.pseudonym_key_file)
    configure_logs(service, instance, settings.log_level)
    tracing.sample(tracing.default_share(settings.env))
    otlp.start(service, instance, settings.env)
    clients.watch_databases()
    REGISTRY.register(Certificate(settings.svid_dir / "tls.crt"))
    if settings.metrics_listen:
        expose(settings.metrics_listen)


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[None]:
    """Watch the event loop while the body runs; flush the exporters at the end."""
    from mesh.chassis.background import background  # It counts failures with our metrics.

    try:
        async with background("event loop lag", watch_loop):
            yield
    finally:
        await asyncio.to_thread(otlp.stop)
