"""
Model of one Envoy: its workload, addresses, sockets, folders and traffic settings.

Addresses are written as in settings: ``127.0.0.1:3001``, ``survey:3001`` or ``unix:/run/x.sock``.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

EDGE, EGRESS, INBOUND, STATS = "edge", "egress", "inbound", "stats"
"""Listeners of a proxy: for browsers, to other services, from the mesh, its own statistics."""
TRUST_DOMAIN = "amarre.local"
NAMESPACE = "amarre"


def spiffe_id(workload: str) -> str:
    """Return the SPIFFE id of a workload of this mesh."""
    return f"spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{workload}"


def dns_name(service: str) -> str:
    """Return the authority by which callers address *service* through their sidecar."""
    return f"{service}.{TRUST_DOMAIN}"


@dataclass(frozen=True)
class Edge:
    """The edge listeners for browsers, which only the gateway's Envoy has."""

    http: str
    https: str = ""
    """Empty means no HTTPS listener."""
    tls_dir: str = ""
    """Folder with ``tls.crt`` and ``tls.key`` of the HTTPS listener."""
    redirect: bool = False
    """Whether the HTTP listener redirects to HTTPS, except for health checks."""
    rate_limits: bool = True
    hsts: timedelta = timedelta(minutes=5)


OTLP, OTLP_LOGS = "otlp", "otlp_logs"
"""The clusters of the collector, and of the one of log lines if it is another one."""


@dataclass(frozen=True)
class Collector:
    """Where a signal is sent."""

    address: str
    """OTLP/gRPC address, ``127.0.0.1:3021``."""
    headers: tuple[tuple[str, str], ...] = ()
    """Headers of each export, such as the token that the collector requires."""


@dataclass(frozen=True)
class Telemetry:
    """Destinations of spans and of log lines, None for none, and the sampling of spans."""

    traces: Collector | None = None
    logs: Collector | None = None
    sampling_percent: float = 100.0
    environment: str = "development"
    """The environment of the process, ``AMARRE_ENV``."""

    @property
    def cluster_of_logs(self) -> str:
        """The cluster to which log lines are sent."""
        traces, logs = self.traces, self.logs
        return OTLP if logs and traces and logs.address == traces.address else OTLP_LOGS

    @property
    def clusters(self) -> dict[str, str]:
        """The address of each cluster of a collector."""
        traces = {OTLP: self.traces.address} if self.traces else {}
        return traces | ({self.cluster_of_logs: self.logs.address} if self.logs else {})


@dataclass(frozen=True)
class Proxy:
    """The Envoy of one process."""

    name: str
    """The proxy's own name, ``survey-2-envoy``."""
    workload: str
    """The service account whose identity it has, ``survey``."""
    folder: str
    """Folder of its files; it watches the routes, endpoints and secrets in it."""
    svid_dir: str
    """Folder with ``tls.crt``, ``tls.key`` and ``ca.crt``, replaced as a whole."""
    admin: str
    """Address of its admin interface; anyone who can reach it can stop the proxy."""
    app: str
    """The Unix socket of its process."""
    egress: str
    """The Unix socket through which its process calls other services."""
    inbound: str = ""
    """The address for callers; empty for the gateway, which has an edge instead."""
    key_set: str = ""
    """The socket or address of Auth's key set; only for services."""
    stats: str = ""
    """Address that exposes only the statistics of the admin interface; empty means none."""
    edge: Edge | None = None
    telemetry: Telemetry = field(default_factory=Telemetry)


Endpoints = Mapping[str, tuple[str, ...]]
"""Addresses of the replicas of each service; ``survey_canary`` has those of a canary."""


@dataclass(frozen=True)
class InjectedFault:
    """An injected fault: a percentage of a method's calls is delayed or aborted."""

    method: str
    """``survey.ListRequests``."""
    percent: float = 100.0
    delay: timedelta | None = None
    abort: int | None = None
    """The gRPC status code to return."""


@dataclass(frozen=True)
class Traffic:
    """Traffic settings that operators change while the mesh runs; the default is none."""

    weights: dict[str, int] = field(default_factory=dict)
    """Percentage of each service's calls that go to its canary; absent without a canary."""
    faults: tuple[InjectedFault, ...] = ()

    def fault_of(self, method: str) -> InjectedFault | None:
        """Return the fault of the method, if it has one."""
        return next((fault for fault in self.faults if fault.method == method), None)


def canary_of(service: str) -> str:
    """Return the name of the canary cluster of *service*."""
    return f"{service}_canary"


def address(text: str) -> dict[str, Any]:
    """Return *text* as an Envoy address."""
    if text.startswith("unix:"):
        return {"pipe": {"path": text.removeprefix("unix:")}}
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def is_name(text: str) -> bool:
    """Return whether an address must be resolved with DNS."""
    if text.startswith("unix:"):
        return False
    try:
        ipaddress.ip_address(text.rpartition(":")[0].strip("[]"))
    except ValueError:
        return True
    return False


def seconds(duration: timedelta) -> str:
    """Return *duration* in protobuf's JSON format, ``2s`` or ``0.5s``."""
    return f"{duration.total_seconds():.3f}".rstrip("0").rstrip(".") + "s"


def typed(type_name: str, /, **fields: Any) -> dict[str, Any]:
    """Return a ``typed_config`` of this type, named without ``type.googleapis.com/``."""
    return {"@type": f"type.googleapis.com/{type_name}", **fields}
