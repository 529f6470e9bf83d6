"""
Where one Envoy stands: whose it is, which addresses, sockets and folders it uses.

Addresses are written as in settings: ``127.0.0.1:3001``, ``survey:3001`` or ``unix:/run/x.sock``.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

EDGE, EGRESS, INBOUND, STATS = "edge", "egress", "inbound", "stats"
"""The ways through a proxy: in from browsers, out to services, in from the mesh, to itself."""
TRUST_DOMAIN = "amarre.local"
NAMESPACE = "amarre"


def spiffe_id(workload: str) -> str:
    """Return the identity of a workload of this mesh."""
    return f"spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{workload}"


def dns_name(service: str) -> str:
    """Return the authority under which callers ask their sidecar for *service*."""
    return f"{service}.{TRUST_DOMAIN}"


@dataclass(frozen=True)
class Edge:
    """What the gateway's Envoy has beyond the others: the way in for browsers."""

    http: str
    https: str = ""
    """Empty means no HTTPS listener."""
    tls_dir: str = ""
    """Folder with ``tls.crt`` and ``tls.key`` of the HTTPS listener."""
    redirect: bool = False
    """Whether the HTTP listener sends browsers to HTTPS, health checks excepted."""
    rate_limits: bool = True
    hsts: timedelta = timedelta(minutes=5)


@dataclass(frozen=True)
class Telemetry:
    """Where spans go and how many; without an address there are none."""

    otlp: str = ""
    """OTLP over gRPC, ``127.0.0.1:3021``."""
    sampling_percent: float = 100.0


@dataclass(frozen=True)
class Proxy:
    """One Envoy beside one process."""

    name: str
    """The proxy's own name, ``survey-2-envoy``."""
    workload: str
    """The service account whose identity it bears, ``survey``."""
    folder: str
    """Where its files stand; routes, endpoints and secrets below it are watched."""
    svid_dir: str
    """Folder with ``tls.crt``, ``tls.key`` and ``ca.crt``, replaced as a whole."""
    admin: str
    """Where its admin interface is; whoever reaches it can stop the proxy."""
    app: str
    """The Unix socket of the process behind it."""
    egress: str
    """The Unix socket by which the process reaches other services."""
    inbound: str = ""
    """Where callers reach the service; empty for the gateway, which has an edge."""
    key_set: str = ""
    """The socket or address of Auth's key set, for services."""
    stats: str = ""
    """Where its statistics are, and nothing else of the admin interface; empty means nowhere."""
    edge: Edge | None = None
    telemetry: Telemetry = field(default_factory=Telemetry)


Endpoints = Mapping[str, tuple[str, ...]]
"""Where the replicas of each service are; ``survey_canary`` holds those of a canary."""


def canary_of(service: str) -> str:
    """Return the name of the cluster that holds the canary of *service*."""
    return f"{service}_canary"


def address(text: str) -> dict[str, Any]:
    """Return *text* as Envoy writes addresses."""
    if text.startswith("unix:"):
        return {"pipe": {"path": text.removeprefix("unix:")}}
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def is_name(text: str) -> bool:
    """Say whether an address must be looked up in the DNS."""
    if text.startswith("unix:"):
        return False
    try:
        ipaddress.ip_address(text.rpartition(":")[0].strip("[]"))
    except ValueError:
        return True
    return False


def seconds(duration: timedelta) -> str:
    """Return *duration* as protobuf's JSON writes it, ``2s`` or ``0.5s``."""
    return f"{duration.total_seconds():.3f}".rstrip("0").rstrip(".") + "s"


def typed(type_name: str, /, **fields: Any) -> dict[str, Any]:
    """Return a ``typed_config`` of this type, given without ``type.googleapis.com/``."""
    return {"@type": f"type.googleapis.com/{type_name}", **fields}
