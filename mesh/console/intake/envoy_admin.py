"""Reads the state of an Envoy from its admin interface: what engineers on call need."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import httpx

_STATS = (
    r"circuit_breakers\.\w+\.\w+_open$|outlier_detection\.ejections_active$"
    r"|upstream_rq_(total|active|retry|active_overflow|pending_overflow|timeout|per_try_timeout)$"
    r"|http_local_rate_limit\.rate_limited$|downstream_(global_cx_overflow|cx_overload_reject)$"
    r"|^server\.(memory_allocated|state|uptime)$"
)
_MARKS = re.compile(
    r"(membership_(change|healthy|total)|health_check\.(failure|healthy)"
    r"|outlier_detection\.ejections_(active|enforced_total))$"
    r"|^cluster_manager\.cluster_(added|modified|removed)$"
    r"|^listener_manager\.listener_(added|modified|removed)$"
    r"|\.rds\..+\.(config_reload|update_success)$"
    r"|ssl_context_update_by_sds$"
)
"""Statistics, at least one of which changes whenever hosts, routes or certificates do."""
_GAUGE = re.compile(r"_open$|_active$|^server\.")
_FAULT_FILTER = "envoy.filters.http.fault"
_STATES = ("LIVE", "DRAINING", "PRE_INITIALIZING", "INITIALIZING")
"""Server states by the value of ``server.state``."""
MOST_BYTES = 16 * 1024 * 1024
LISTED_SECONDS = 60.0
"""How long hosts, certificates and routes are reused while no statistic has changed."""


class Load(NamedTuple):
    """The active requests to a cluster, and how many its circuit breaker allows."""

    cluster: str
    active: int
    limit: int


@dataclass(frozen=True)
class Proxy:
    """
    One Envoy.

    Lists hold objects in the form of the API: hosts with ``cluster, address, health,
    ejected``; certificates with ``subject, serial, notBefore, notAfter``; breakers that are open
    with ``cluster, kind``; routes with ``path, cluster, timeout, retries``; weights with
    ``path, clusters``; faults with ``path, delay, abort``.
    """

    version: str
    state: str
    uptime_seconds: float
    hosts: list[dict[str, Any]] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    certificates: list[dict[str, Any]] = field(default_factory=list)
    breakers: list[dict[str, Any]] = field(default_factory=list)
    routes: list[dict[str, Any]] = field(default_factory=list)
    weights: list[dict[str, Any]] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    counters: dict[str, float] = field(default_factory=dict)
    memory_bytes: float = 0.0
    marks: dict[str, float] = field(default_factory=dict)
    """The statistics by which `read` detects that the lists may have changed."""
    listed_at: float = 0.0
    """When the lists were read, in seconds of a monotonic clock."""


async def read(client: httpx.AsyncClient, url: str, before: Proxy | None = None) -> Proxy:
    """
    Read the admin interface at *url*.

    The long responses (version, hosts, certificates, routes) are taken from *before*, the last
    reading, while no statistic indicates a change.

    Raises:
        httpx.HTTPError: It does not respond, or with an error status.
        ValueError, LookupError, TypeError: The response is not that of an Envoy.
    """
    asked = {"format": "json", "filter": f"{_STATS}|{_MARKS.pattern}"}
    stats = await _json(client, f"{url}/stats", params=asked)
    values = {s["name"]: float(s.get("value", 0)) for s in stats["stats"] if "name" in s}
    short: dict[str, Any] = {
        "state": _STATES[int(values["server.state"])],
        "uptime_seconds": values["server.uptime"],
        "breakers": [
            {"cluster": name.split(".")[1], "kind": name.rsplit(".", 1)[1].removesuffix("_open")}
            for name, value in values.items()
            if name.endswith("_open") and value
        ],
        "counters": {
            n: v for n, v in values.items() if v and not (_GAUGE.search(n) or _MARKS.search(n))
        },
        "memory_bytes": values.get("server.memory_allocated", 0.0),
        "marks": {name: value for name, value in values.items() if _MARKS.search(name)},
    }
    now = time.monotonic()
    if (
        before is not None
        and before.marks == short["marks"]
        and before.uptime_seconds <= short["uptime_seconds"]
        and now - before.listed_at < LISTED_SECONDS
    ):
        loads = [
            load._replace(active=int(values.get(f"cluster.{load.cluster}.upstream_rq_active", 0)))
            for load in before.loads
        ]
        return replace(before, **short, loads=loads)
    info = await _json(client, f"{url}/server_info")
    clusters = await _json(client, f"{url}/clusters", params={"format": "json"})
    certificates = await _json(client, f"{url}/certs")
    routes = [*await _routes(client, url, "dynamic"), *await _routes(client, url, "static")]
    return Proxy(
        **short,
        version=str(info["version"]).split("/")[1] if "/" in info["version"] else "",
        hosts=list(_hosts(clusters)),
        loads=list(_loads(clusters)),
        certificates=list(_certificates(certificates)),
        routes=[_route(route) for route in routes],
        weights=[found for route in routes if (found := _weights(route))],
        faults=[found for route in routes if (found := _fault(route))],
        listed_at=now,
    )


async def _json(
    client: httpx.AsyncClient, url: str, params: dict[str, str] | None = None
) -> dict[str, Any]:
    answer = await client.get(url, params=params)
    answer.raise_for_status()
    if len(answer.content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    found = json.loads(answer.content)
    if not isinstance(found, dict):
        raise TypeError("not a JSON object")
    return found


async def _routes(client: httpx.AsyncClient, url: str, kind: str) -> list[dict[str, Any]]:
    """Return the routes of every table of *kind*; an Envoy without routes returns 404."""
    answer = await client.get(f"{url}/config_dump", params={"resource": f"{kind}_route_configs"})
    if answer.status_code == httpx.codes.NOT_FOUND:
        return []
    answer.raise_for_status()
    return [
        route
        for config in answer.json().get("configs", [])
        for host in config.get("route_config", {}).get("virtual_hosts", [])
        for route in host.get("routes", [])
    ]


def _hosts(clusters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for cluster in clusters.get("cluster_statuses", []):
        for host in cluster.get("host_statuses", []):
            health = host.get("health_status", {})
            yield {
                "cluster": cluster["name"],
                "address": _address(host.get("address", {})),
                "health": str(health.get("eds_health_status", "UNKNOWN")).lower(),
                "ejected": bool(health.get("failed_outlier_check")),
                "failing": bool(health.get("failed_active_health_check")),
            }


def _loads(clusters: dict[str, Any]) -> Iterator[Load]:
    for cluster in clusters.get("cluster_statuses", []):
        active = [
            int(stat.get("value", 0))
            for host in cluster.get("host_statuses", [])
            for stat in host.get("stats", [])
            if stat.get("name") == "rq_active"
        ]
        thresholds = cluster.get("circuit_breakers", {}).get("thresholds", [])
        limit = next((int(t.get("max_requests", 0)) for t in thresholds), 0)
        if active and limit:
            yield Load(cluster["name"], sum(active), limit)


def _address(address: dict[str, Any]) -> str:
    socket = address.get("socket_address")
    if socket:
        return f"{socket.get('address')}:{socket.get('port_value')}"
    return str(address.get("pipe", {}).get("path", "").rpartition("/")[2])


def _certificates(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    shown = set()
    for entry in found.get("certificates", []):
        for leaf in entry.get("cert_chain", []):
            names = [next(iter(name.values()), "") for name in leaf.get("subject_alt_names", [])]
            subject = next((n for n in names if n.startswith("spiffe:")), ", ".join(names))
            if leaf.get("serial_number") not in shown:
                shown.add(leaf.get("serial_number"))
                yield {
                    "subject": subject,
                    "serial": leaf.get("serial_number", ""),
                    "notBefore": leaf.get("valid_from", ""),
                    "notAfter": leaf.get("expiration_time", ""),
                }


def _path(route: dict[str, Any]) -> str:
    match = route.get("match", {})
    for key in ("path", "prefix", "path_separated_prefix"):
        if key in match:
            return f"{match[key]}{'*' if key == 'prefix' else ''}"
    return str(match.get("safe_regex", {}).get("regex", "*"))


def _route(route: dict[str, Any]) -> dict[str, Any]:
    action = route.get("route", {})
    limits = action.get("max_stream_duration", {})
    retries = action.get("retry_policy", {})
    return {
        "path": _path(route),
        "cluster": action.get("cluster") or "weighted",
        "timeout": limits.get("max_stream_duration") or action.get("timeout") or "",
        "retries": int(retries.get("num_retries", 1)) if retries else 0,
        "retryOn": retries.get("retry_on", ""),
    }


def _weights(route: dict[str, Any]) -> dict[str, Any]:
    clusters = route.get("route", {}).get("weighted_clusters", {}).get("clusters", [])
    if not clusters:
        return {}
    weights = {cluster["name"]: cluster.get("weight", 0) for cluster in clusters}
    return {"path": _path(route), "clusters": weights}


def _fault(route: dict[str, Any]) -> dict[str, Any]:
    config = route.get("typed_per_filter_config", {}).get(_FAULT_FILTER, {})
    if not (config.get("delay") or config.get("abort")):
        return {}
    delay, abort = config.get("delay", {}), config.get("abort", {})
    return {
        "path": _path(route),
        "delay": delay.get("fixed_delay", ""),
        "delayShare": _share(delay),
        "abort": str(abort.get("grpc_status", abort.get("http_status", ""))),
        "abortShare": _share(abort),
    }


def _share(part: dict[str, Any]) -> float:
    percentage = part.get("percentage", {})
    scale = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}
    return float(
        percentage.get("numerator", 0) / scale[str(percentage.get("denominator", "HUNDRED"))]
    )
