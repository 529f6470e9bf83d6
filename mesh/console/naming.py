"""Maps names in telemetry to the names that the console shows."""

import functools
import re
from collections.abc import Mapping
from typing import Any

from mesh.chassis.config import MeshSettings
from mesh.chassis.identity import InvalidSpiffeIdError, SpiffeId
from mesh.chassis.telemetry import names as emitted
from mesh.contract import policy

NO_ROUTE = "(no route)"
"""Instead of the route of a request that matched none."""
APP = "app"
"""The Envoy cluster through which a sidecar reaches its own service."""
SERVER, CLIENT = 2, 3
"""The OTLP span kinds for the two sides of a call."""

GRPC_CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
    *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
    *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
    "UNAUTHENTICATED",
)
OUR_FAULT = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""The codes that count as failures of a service; the others are caller errors."""
CALLERS_FAULT = frozenset(GRPC_CODES) - OUR_FAULT - {"OK"}
"""Caller errors whose spans Envoy and other libraries mark as failed."""
REFUSED = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED"})

_OVERFLOW = re.compile(rf"cluster\.({APP}(?:_\w+)?)\.upstream_rq_pending_overflow")
_LIMITS = {
    "rate_limited": "client_rate",
    "downstream_global_cx_overflow": "connections",
    "downstream_cx_overload_reject": "memory",
}
_PROXY = re.compile(r"[-_.](envoy|proxy|sidecar)$")
_REPLICA = re.compile(r"-\d+$|[-_]canary$")
_NAMESPACE = MeshSettings.model_fields["namespace"].default
PROBE_PATHS = frozenset(
    {"/healthz", "/readyz", "/livez", "/ready", "/health", "/metrics", "/_control/health"}
)
_SYSTEM = re.compile(r"^[a-z][a-z0-9_-]{0,63}$")
_GRPC_PATH = re.compile(r"^(?:[a-z]+://[^/]+)?(/[\w.]+\.[\w]+/\w+)$")


@functools.lru_cache(maxsize=1024)
def workload(service: str) -> str:
    """Return the workload of a process, its proxy or its canary: ``survey-2-envoy`` is ``survey``.

    The Envoy cluster of its canary is ``survey_canary``; ``shop:1`` is a process of another sender.
    """
    service = service.partition(":")[0]
    return _REPLICA.sub("", _PROXY.sub("", service)) or service


def cluster_workload(cluster: str, process: str) -> str:
    """
    Return the workload behind an Envoy cluster of *process*.

    ``app`` and ``app_survey`` belong to the proxy's own service; the latter carries Survey requests
    at the gateway.
    """
    return workload(process if cluster == APP or cluster.startswith(f"{APP}_") else cluster)


def proxy_limit(counter: str) -> str:
    """
    Return the limit whose rejections the Envoy *counter* counts; empty for other counters.

    The name is that of the rule ``LimitRefusals``: the cluster of the process behind the proxy.
    """
    if found := _OVERFLOW.fullmatch(counter):
        return found[1]
    return _LIMITS.get(counter.rpartition(".")[2], "")


def is_proxy(service: str, attributes: Mapping[str, Any]) -> bool:
    """Return whether an Envoy reported the span."""
    return (
        attributes.get("component") == "proxy"
        or "upstream_cluster" in attributes
        or _PROXY.search(service) is not None
    )


def rpc(attributes: Mapping[str, Any], name: str) -> str:
    """Return the rpc of a span, such as ``survey.ListRequests``; empty if it is not an rpc."""
    service, method = attributes.get("rpc.service"), attributes.get("rpc.method")
    if service and method:
        return _short(f"/{service}/{method}")
    path = method or attributes.get("grpc.path") or attributes.get("http.url") or name
    found = _GRPC_PATH.match(path if str(path).startswith(("/", "http")) else f"/{path}")
    return _short(found.group(1)) if found else ""


def span_name(name: str, attributes: Mapping[str, Any]) -> str:
    """
    Return the name of a span, without the ``other`` of requests that matched no route.

    The edge knows the routes of the API only. All other paths, such as pages, are known to the
    gateway, whose span arrives seconds later, or never if the gateway is down.
    """
    if name.rpartition(" ")[2] not in {"", "other"}:
        return name
    verb = attributes.get(emitted.HTTP_METHOD) or attributes.get("http.method") or ""
    if not verb and name:
        return name  # Not a request.
    unknown = "(outside the API)" if attributes.get("component") == "proxy" else NO_ROUTE
    return f"{verb} {unknown}".strip()


def code(attributes: Mapping[str, Any]) -> str:
    """Return the name of the gRPC code, or the HTTP status; empty if neither is known."""
    number = attributes.get("rpc.grpc.status_code", attributes.get("grpc.status_code"))
    number = attributes.get("rpc.response.status_code", number)
    if number is not None:
        text = str(number)
        if text.isdigit() and int(text) < len(GRPC_CODES):
            return GRPC_CODES[int(text)]
        return text[:32]
    status = attributes.get("http.response.status_code", attributes.get("http.status_code"))
    return "" if status is None else str(status)[:32]


def is_failure(code: str) -> bool:
    """Return whether *code* is a failure of the service."""
    return code in OUR_FAULT or (len(code) == 3 and code.startswith("5"))


def is_probe(attributes: Mapping[str, Any], rpc: str, name: str) -> bool:
    """Return whether a span belongs to a health check or a scrape."""
    if rpc.startswith("grpc.health.v1.Health/"):
        return True
    for key in ("http.route", "url.path", "http.target"):
        path = attributes.get(key)
        if path is not None:
            return str(path).partition("?")[0] in PROBE_PATHS
    return name.removeprefix("GET ") in PROBE_PATHS


@functools.lru_cache(maxsize=1024)
def caller(identity: str) -> str:
    """Return the account of a SPIFFE id; with its namespace if that is not the mesh's own."""
    try:
        found = SpiffeId.parse(identity)
    except InvalidSpiffeIdError:
        return identity.partition("/sa/")[2]
    return found.name if found.namespace == _NAMESPACE else f"{found.namespace}/{found.name}"


def peer(kind: int, attributes: Mapping[str, Any], name: str) -> str:
    """
    Return the peer of a span.

    For a server span, the caller as identified by the service or its proxy; for a client span,
    the system outside the mesh, such as ``redcap``; empty if unknown.
    """
    if kind == SERVER:
        identity = str(attributes.get(emitted.CALLER_ID) or "")
        return str(attributes.get(emitted.CALLER) or caller(identity))[:64]
    if kind != CLIENT:
        return ""
    method, _, system = name.partition(" ")
    if method == attributes.get(emitted.HTTP_METHOD) and _SYSTEM.match(system):
        return system
    return str(attributes.get(emitted.PEER) or "")[:64]


@functools.lru_cache(maxsize=4096)
def _short(path: str) -> str:
    method = policy.load().by_path.get(path)
    return method.short_name if method else path.removeprefix("/")[:200]
