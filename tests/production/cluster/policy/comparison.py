"""Compares the contracts and the local Envoys with the configuration from istiod, rpc by rpc."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import yaml

from mesh.chassis.tokens import ISSUER
from mesh.contract.policy import Method
from mesh.render import registry
from mesh.render.deployment import OPERATOR, Deployment, Workload, principal
from mesh.render.envoy.errors import HEALTH_CHECK_FAILED
from mesh.render.envoy.routes import STREAM_MARGIN
from tests.production.cluster.policy import edge
from tests.production.cluster.policy.rbac import Call, allowed
from tests.production.cluster.policy.table import Row, first, seconds
from tests.production.cluster.policy.xds import Dump, find, snake

ENVOY = registry.committed("envoy")
STRANGERS = {
    "stranger": "amarre.local/ns/default/sa/default",
    "edge": "amarre.local/ns/amarre-edge/sa/edge",
    "other trust domain": "cluster.local/ns/amarre-app/sa/gateway",
}


def rows(deployed: Deployment, dumps: dict[str, Dump]) -> Iterator[Row]:
    """Yield every comparison."""
    for method in deployed.mesh:
        callee = deployed.workload(method.service)
        yield from callers(deployed, method, callee, dumps[callee.name])
        for caller in deployed.callers(callee.name):
            yield from _route(method, caller, callee, dumps[caller.name])
    for callee in deployed.workloads:
        if callee.is_grpc:
            for caller in deployed.callers(callee.name):
                yield from _clusters(deployed, caller, callee, dumps[caller.name])
            yield from _inbound(callee, dumps[callee.name])
    yield from edge.rows(dumps["edge"])


def callers(deployed: Deployment, method: Method, callee: Workload, dump: Dump) -> Iterator[Row]:
    """Yield the permitted callers of *method*, and their tokens."""
    chains = dump.inbound(callee.port)
    everyone = {w.name: w.principal for w in deployed.workloads} | STRANGERS
    everyone[OPERATOR] = principal("amarre-app", OPERATOR)
    names = sorted(w.name for w in deployed.workloads)
    expected = names if method.allows("*") else sorted(method.callers)
    token: dict[str, Any] = {"iss": ISSUER, "sub": "user", "aud": callee.name}
    if method.roles:
        token["labels"] = list(method.roles)

    def may(token: dict[str, Any] | None, **headers: str) -> list[str]:
        return sorted(
            name
            for name, who in everyone.items()
            if any(
                allowed(c, Call(method.path, callee.port, f"spiffe://{who}", token, headers))
                for c in chains
            )
        )

    encrypted = [bool(first(c, "require_client_certificate")) for c in chains]
    yield Row("mutual TLS only", method.name, {True}, set(encrypted))
    yield Row("callers", method.name, expected, may(token))
    without = [] if method.needs_session else expected
    yield Row("callers without a user", method.name, without, may(None))
    if method.needs_session:
        other = {**token, "aud": "other"}
        yield Row("callers with a token for another audience", method.name, [], may(other))
    if method.roles:
        plain = {key: value for key, value in token.items() if key != "labels"}
        yield Row("callers without the required role", method.name, [], may(plain))
    json_call = {"content-type": "application/json"}
    yield Row("non-gRPC callers", method.name, [], may(token, **json_call))


def _local_route(caller: Workload, method: Method) -> Any:
    file = ENVOY / f"{caller.name}-envoy" / "routes" / "egress.yaml"
    routes = (r for found in find(yaml.safe_load(file.read_text()), "routes") for r in found)
    return next(r["route"] for r in routes if r["match"].get("path") == method.path)


def _route(method: Method, caller: Workload, callee: Workload, dump: Dump) -> Iterator[Row]:
    local = _local_route(caller, method)
    for canary in [False] if method.stays_open else [False, True]:
        where = f"{method.name} from {caller.name}{' (canary)' if canary else ''}"
        found = dump.route(callee.port, method.path, canary=canary)
        if found is None:
            yield Row("a route per method", where, True, False)
            continue
        route = found["route"]
        duration = route.get("max_stream_duration", {})
        margin = STREAM_MARGIN if method.streams else timedelta()
        ends = (method.deadline + margin).total_seconds()
        yield Row("deadline", where, ends, seconds(duration.get("max_stream_duration")))
        longest = seconds(duration.get("grpc_timeout_header_max"))
        # A proxy could only reset a stream then.
        yield Row("maximum deadline of a caller", where, 0 if method.streams else ends, longest)
        retry, mine = route.get("retry_policy", {}), local.get("retry_policy", {})
        attempts = retry.get("num_retries", 1 if retry.get("retry_on") else 0)
        yield Row("retries", where, mine.get("num_retries", 0), attempts)
        yield Row("retries of idempotent methods only", where, method.may_retry, attempts > 0)
        if method.may_retry:
            conditions = (sorted(r["retry_on"].split(",")) for r in (mine, retry))
            yield Row("retry conditions", where, *conditions)
            tries = (seconds(r["per_try_timeout"]) for r in (mine, retry))
            yield Row("per-try timeout", where, *tries)
            hedges = (bool(first(r, "hedge_on_per_try_timeout")) for r in (local, route))
            yield Row("request hedging", where, *hedges)


def _clusters(
    deployed: Deployment, caller: Workload, callee: Workload, dump: Dump
) -> Iterator[Row]:
    service = deployed.mesh.service(callee.name)
    file = ENVOY / f"{caller.name}-envoy" / "clusters" / "callees.yaml"
    locals_ = yaml.safe_load(file.read_text())["resources"]
    local = snake(next(c for c in locals_ if c["name"] == callee.name))
    for subset in ("stable", "canary"):
        where = f"{caller.name} to {callee.name} ({subset})"
        found = dump.clusters.get(f"outbound|{callee.port}|{subset}|{callee.host}")
        if found is None:
            yield Row("a cluster per subset", where, True, False)
            continue
        limits = found["circuit_breakers"]["thresholds"][0]
        most = service.max_concurrent_requests
        yield Row("maximum concurrent requests", where, most, limits.get("max_requests"))
        pending = limits.get("max_pending_requests")
        yield Row("maximum pending requests", where, service.max_pending_requests, pending)
        budgets = [_budget(c["circuit_breakers"]["thresholds"][0]) for c in (local, found)]
        yield Row("retry budget", where, *budgets)
        ejection, mine = found.get("outlier_detection", {}), local["outlier_detection"]
        rule = service.outlier
        failures = ejection.get("consecutive_local_origin_failure")
        yield Row(
            "consecutive failures before ejection", where, rule.consecutive_failures, failures
        )
        most_percent = ejection.get("max_ejection_percent")
        yield Row("maximum ejection percentage", where, rule.max_ejection_percent, most_percent)
        base = seconds(ejection.get("base_ejection_time"))
        yield Row("base ejection time", where, rule.base_ejection_time.total_seconds(), base)
        for option, key, default in _EJECTION:
            yield Row(option, where, mine.get(key, default), ejection.get(key, default))
        for option, key in _SELECTION:
            yield Row(option, where, _checks(local, key), _checks(found, key))
        identities = sorted(
            v for names in find(found, "match_subject_alt_names") for e in names for v in e.values()
        )
        yield Row("SPIFFE id of the callee", where, [callee.spiffe_id], identities)
        for option, name in (
            ("minimum TLS version, callers", "tls_minimum_protocol_version"),
            ("maximum connection duration, outbound", "max_connection_duration"),
        ):
            yield Row(option, where, first(local, name), first(found, name))


_EJECTION = (
    ("ejection after consecutive 5xx responses", "enforcing_consecutive_5xx", 100),
    ("ejection after consecutive gateway failures", "enforcing_consecutive_gateway_failure", 0),
    ("split external and local-origin errors", "split_external_local_origin_errors", False),
    ("failure percentage threshold", "failure_percentage_threshold", 85),
    ("enforcement of the failure percentage", "enforcing_failure_percentage_local_origin", 0),
    ("minimum request volume", "failure_percentage_request_volume", 50),
)
"""Options of outlier detection, with Envoy's defaults."""
_SELECTION = (
    ("active health checks", "health_checks"),
    ("panic threshold", "healthy_panic_threshold"),
    ("update merge window", "update_merge_window"),
)


def _checks(cluster: Any, key: str) -> Any:
    """Return the value of *key* without the name of the callee, whose form differs."""
    if key != "health_checks":
        return first(cluster, key)
    found = json.loads(json.dumps(cluster.get(key, [])))
    for check in found:
        check.get("grpc_health_check", {}).pop("authority", None)
    return [{name: _plain(value) for name, value in check.items()} for check in found]


def _plain(value: Any) -> Any:
    """Return *value* with durations as numbers, in any notation."""
    try:
        return seconds(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _budget(limits: Any) -> tuple[float, int]:
    budget = limits.get("retry_budget", {})
    return float(budget["budget_percent"]["value"]), budget["min_retry_concurrency"]


_INBOUND = {
    "escaped slashes in paths": "path_with_escaped_slashes_action",
    "maximum concurrent streams": "max_concurrent_streams",
    "initial stream window": "initial_stream_window_size",
    "initial connection window": "initial_connection_window_size",
    "JWKS cache duration": "cache_duration",
    "JWKS refetch interval after a failure": "failed_refetch_duration",
    "maximum token lifetime": "max_lifetime",
    "token expiry required": "require_expiration",
    "clock skew": "clock_skew_seconds",
    "minimum TLS version, callees": "tls_minimum_protocol_version",
    "forwarded client certificate": "forward_client_cert_details",
    "trace sampling percentage": "random_sampling",
    "maximum connection duration, inbound": "max_connection_duration",
}


_BUFFER = "per_connection_buffer_limit_bytes"


def _inbound(callee: Workload, dump: Dump) -> Iterator[Row]:
    file = ENVOY / f"{callee.name}-envoy" / "envoy.yaml"
    listeners = yaml.safe_load(file.read_text())["static_resources"]["listeners"]
    local = next(one for one in listeners if one["name"] == "inbound")
    chains = dump.inbound(callee.port)
    for option, key in _INBOUND.items():
        yield Row(
            option, callee.name, first(local, key), first([*chains, dump.inbound_listener], key)
        )
    buffers = (one.get(_BUFFER) for one in (local, dump.inbound_listener))
    yield Row("connection buffer limit", callee.name, *buffers)
    gone = (_takes_out(n) for n in (local, chains))
    yield Row("eject a replica whose process has exited", callee.name, *gone)
    mine, theirs = (len(first(n, "mappers") or []) for n in (local, chains))
    yield Row("error details of proxy responses", callee.name, mine, theirs)
    fields = [sorted(first(n, "json_format") or {}) for n in (local, chains)]
    yield Row("access log fields", callee.name, *fields)
    routes = yaml.safe_load((file.parent / "routes" / "inbound.yaml").read_text())
    mine_deadlines = _deadlines(r for hosts in find(routes, "routes") for r in hosts)
    their_deadlines = _deadlines(r for hosts in find(chains, "routes") for r in hosts)
    yield Row("deadline enforced at the callee", callee.name, mine_deadlines, their_deadlines)


def _takes_out(listener: Any) -> list[str]:
    """Return the response flags after which a proxy makes callers eject its replica."""
    return sorted(
        flag
        for mapper in first(listener, "mappers") or []
        if HEALTH_CHECK_FAILED in {h["header"]["key"] for h in mapper.get("headers_to_add", [])}
        for flag in first(mapper, "flags") or []
    )


def _deadlines(routes: Iterator[Any]) -> dict[str, float]:
    found = {}
    for route in routes:
        path = route["match"].get("path")
        if path is not None:
            duration = route["route"]["max_stream_duration"]["max_stream_duration"]
            found[path] = seconds(duration)
    return found
