"""
Routes in watched files, which may change while an Envoy runs.

Outbound: one route per method with its deadline, its retries if the contract declares it
idempotent, and the canary's weight. Inbound: one route per method with its injected fault.
"""

from datetime import timedelta
from typing import Any

from mesh.contract.policy import Method, Service
from mesh.contract.wire import CANARY_HEADER
from mesh.render.deployment import HEALTH_SERVICE, REFLECTION
from mesh.render.envoy.clusters import APP
from mesh.render.envoy.proxy import (
    EGRESS,
    INBOUND,
    InjectedFault,
    Traffic,
    canary_of,
    dns_name,
    seconds,
    typed,
)
from mesh.render.envoy.retry_budget import reserving
from mesh.render.envoy.telemetry import UNTRACED

MOST_RETRIES = 2
RETRY_ON = "unavailable,reset-before-request,connect-failure,refused-stream"
STREAM_MARGIN = timedelta(seconds=1)
"""
How long after its deadline a proxy ends a stream that neither caller nor service has ended.

A proxy can only reset a stream after its first message, which callers see as INTERNAL.
"""
_HEALTH_SECONDS = "2s"
_FAULT = "envoy.filters.http.fault"


def egress(services: tuple[Service, ...], traffic: Traffic) -> dict[str, Any]:
    """Return the routes from a process to *services*."""
    hosts = [_outbound_host(service, traffic) for service in services]
    return _configuration(EGRESS, hosts)


def inbound(service: Service, traffic: Traffic) -> dict[str, Any]:
    """Return the routes from callers to the proxy's own process."""
    routes = [
        inbound_route(method, traffic.fault_of(method.short_name)) for method in service.methods
    ]
    for prefix in (HEALTH_SERVICE, *REFLECTION):
        routes.append(
            {
                "match": {"prefix": prefix},
                "route": {"cluster": APP, "priority": "HIGH", "timeout": "0s"},
                "tracing": UNTRACED,
            }
        )
    return _configuration(INBOUND, [{"name": service.name, "domains": ["*"], "routes": routes}])


def _configuration(name: str, hosts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "resources": [
            typed("envoy.config.route.v3.RouteConfiguration", name=name, virtual_hosts=hosts)
        ]
    }


def _outbound_host(service: Service, traffic: Traffic) -> dict[str, Any]:
    weight = traffic.weights.get(service.name)
    routes: list[dict[str, Any]] = []
    for method in service.methods:
        if weight is not None:
            routes.append(_to_canary(method))
        routes.append(_outbound_route(method, weight))
    routes.append(
        {
            "match": {"prefix": HEALTH_SERVICE},
            "route": {"cluster": service.name, "priority": "HIGH", "timeout": _HEALTH_SECONDS},
            "tracing": UNTRACED,
        }
    )
    name = dns_name(service.name)
    return {
        "name": service.name,
        "domains": [name, f"{name}:*"],
        "include_request_attempt_count": True,
        "include_attempt_count_in_response": True,
        "routes": routes,
    }


def _outbound_route(method: Method, weight: int | None) -> dict[str, Any]:
    target: dict[str, Any] = {"cluster": method.service}
    if weight is not None:
        shares = ((method.service, 100 - weight), (canary_of(method.service), weight))
        clusters = [{"name": name, "weight": share} for name, share in shares]
        target = {"weighted_clusters": {"clusters": clusters}}
    return {
        "#": method.source,
        "name": method.short_name,
        "match": {"path": method.path},
        "decorator": {"operation": method.path.removeprefix("/")},
        "route": {**target, **limits(method), **retries(method)},
        **(reserving(MOST_RETRIES) if method.may_retry else {}),
    }


def _to_canary(method: Method) -> dict[str, Any]:
    """The header sends a call to the canary, whatever its weight."""
    header = {"name": CANARY_HEADER, "string_match": {"exact": "1"}}
    return {
        "name": f"{method.short_name} to the canary",
        "match": {"path": method.path, "headers": [header]},
        "decorator": {"operation": method.path.removeprefix("/")},
        "route": {"cluster": canary_of(method.service), **limits(method), **retries(method)},
        **(reserving(MOST_RETRIES) if method.may_retry else {}),
    }


def limits(method: Method) -> dict[str, Any]:
    """Return the limits of a call at its caller, see `duration`."""
    limited = {
        "timeout": "0s" if method.streams else seconds(method.deadline),
        "max_stream_duration": duration(method),
    }
    return limited | ({"idle_timeout": "0s", "priority": "HIGH"} if method.stays_open else {})


def duration(method: Method) -> dict[str, Any]:
    """Return the contract's deadline, or the caller's if shorter; a margin above it for streams."""
    if method.streams:
        return {"max_stream_duration": seconds(method.deadline + STREAM_MARGIN)}
    deadline = seconds(method.deadline)
    return {"max_stream_duration": deadline, "grpc_timeout_header_max": deadline}


def retries(method: Method) -> dict[str, Any]:
    """Return the retry policy of *method*; empty if the contract does not allow retries."""
    if not method.may_retry:
        return {}
    return {
        "retry_policy": {
            "retry_on": RETRY_ON,
            "num_retries": MOST_RETRIES,
            "per_try_timeout": seconds(method.deadline / 2),
            "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.250s"},
            "host_selection_retry_max_attempts": 3,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": typed(
                        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    ),
                }
            ],
        },
        # Hedging: a slow attempt continues beside a second one; the first response wins.
        "hedge_policy": {"hedge_on_per_try_timeout": True},
    }


def inbound_route(
    method: Method, fault: InjectedFault | None = None, *, cluster: str = APP
) -> dict[str, Any]:
    """Return the route to the proxy's own process, which is *cluster*."""
    route: dict[str, Any] = {
        "#": method.source,
        "name": method.short_name,
        "match": {"path": method.path},
        "decorator": {"operation": method.path.removeprefix("/")},
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "max_stream_duration": duration(method),
        },
    }
    if method.stays_open:
        route["route"] |= {"idle_timeout": "0s", "priority": "HIGH"}
    if fault is not None:
        route["typed_per_filter_config"] = {_FAULT: _injected(fault)}
    return route


def _injected(fault: InjectedFault) -> dict[str, Any]:
    share = {"numerator": round(fault.percent * 10_000), "denominator": "MILLION"}
    found: dict[str, Any] = {}
    if fault.delay is not None:
        found["delay"] = {"fixed_delay": seconds(fault.delay), "percentage": share}
    if fault.abort is not None:
        found["abort"] = {"grpc_status": fault.abort, "percentage": share}
    return typed("envoy.extensions.filters.http.fault.v3.HTTPFault", **found)
