"""Clusters of an Envoy: its own process, other services, Auth's keys, the collector."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from mesh.contract.policy import Service
from mesh.render.envoy import tls
from mesh.render.envoy.authorization import KEYS
from mesh.render.envoy.proxy import (
    Endpoints,
    Proxy,
    address,
    canary_of,
    dns_name,
    is_name,
    seconds,
    typed,
)

APP = "app"
"""The cluster of the proxy's own process."""
APP_STREAMS = "app_streams"
"""The same process, for long-lived streams, which have separate limits."""
ADMIN = "admin"
"""The cluster of the proxy's own admin interface."""
CONNECTION_LIFE = "60s"
"""Maximum lifetime of connections, and so how long one may outlive its certificate."""
RETRY_BUDGET_PERCENT = 20.0
LEAST_RETRIES = 8
"""Retries in flight that the budget always allows, however few calls there are."""
CALLEES = PurePosixPath("clusters/callees.yaml")
"""The file with the clusters of other services, in the proxy's folder."""
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MOST_STREAMS = 1000
"""Long-lived streams have a separate limit, so that they do not use up that of calls."""
_MOST_AT_GATEWAY = 64
"""
Concurrent requests to the gateway for one service, and for pages.

Each service has its own share, so that a slow one leaves room for the others. Rejecting excess
requests here costs a fraction of what it would cost the gateway.
"""
_WAITING_AT_GATEWAY = 192
"""
Requests that wait for their turn, in addition: a tenth of a second of work at the peak.

Browsers send in bursts. With room for fewer, some are rejected although the gateway idles
between bursts.
"""
_ALWAYS_AT_GATEWAY = 64
"""Additional requests for health checks and sign-out."""
_MOST_STREAMS_AT_GATEWAY = 600
"""Above the gateway's own limit, so that the gateway's error explains the rejection."""
_FAILING_PERCENT = 40
"""
Failure percentage that ejects a host. A timeout or reset counts once as a failure and its
connection once as a success, so 50 % means that all calls fail, and this value two thirds of them.
"""


def service_app(proxy: Proxy, service: Service) -> dict[str, Any]:
    """Return the cluster of the service of *proxy*, which sheds load above the limit."""
    return {
        "name": APP,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": _breakers(service.max_concurrent_requests, service),
        "typed_extension_protocol_options": _http2(),
        "load_assignment": _assignment(APP, [proxy.app]),
    }


def at_gateway(service: str) -> str:
    """Return the cluster of requests that the gateway forwards to *service*."""
    return f"{APP}_{service}"


def gateway_app(proxy: Proxy, services: Iterable[Service]) -> list[dict[str, Any]]:
    """Return the clusters of the gateway of *proxy*: pages, each of *services*, streams."""
    return [
        _gateway(
            proxy,
            APP,
            _gateway_limit("DEFAULT", _MOST_AT_GATEWAY, _WAITING_AT_GATEWAY),
            _gateway_limit("HIGH", _ALWAYS_AT_GATEWAY),
        ),
        *(
            _gateway(
                proxy,
                at_gateway(one.name),
                _gateway_limit("DEFAULT", _MOST_AT_GATEWAY, _WAITING_AT_GATEWAY),
            )
            for one in services
        ),
        _gateway(proxy, APP_STREAMS, _gateway_limit("DEFAULT", _MOST_STREAMS_AT_GATEWAY)),
    ]


def _gateway(proxy: Proxy, name: str, *limits: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": list(limits)},
        "typed_extension_protocol_options": {
            _HTTP: typed(
                _HTTP,
                # Shorter than the gateway's own, so that no request meets a closing connection.
                common_http_protocol_options={"idle_timeout": "20s"},
                explicit_http_config={"http_protocol_options": {}},
            )
        },
        "load_assignment": _assignment(name, [proxy.app]),
    }


def _gateway_limit(priority: str, most: int, waiting: int = 0) -> dict[str, Any]:
    return {
        "priority": priority,
        "max_connections": most,
        "max_pending_requests": waiting or most,
        "max_requests": most,
        "track_remaining": True,
    }


def callees(proxy: Proxy, services: tuple[Service, ...], endpoints: Endpoints) -> dict[str, Any]:
    """
    Return the watched file with a cluster for each service and each running canary.

    One file for all, because each watched file uses one inotify instance, of which a user has 128.
    """
    found = [_callee(proxy, service, service.name, endpoints) for service in services]
    found += [
        _callee(proxy, service, canary_of(service.name), endpoints)
        for service in services
        if endpoints.get(canary_of(service.name))
    ]
    return {"resources": [typed("envoy.config.cluster.v3.Cluster", **one) for one in found]}


def from_file(proxy: Proxy) -> dict[str, Any]:
    """Return the source of the clusters of other services."""
    folder = f"{proxy.folder}/{CALLEES.parent}"
    return {
        "cds_config": {
            "path_config_source": {
                "path": f"{proxy.folder}/{CALLEES}",
                "watched_directory": {"path": folder},
            },
            "resource_api_version": "V3",
        }
    }


def _callee(proxy: Proxy, service: Service, name: str, endpoints: Endpoints) -> dict[str, Any]:
    addresses = endpoints.get(name, ())
    limit = service.max_concurrent_requests * max(1, len(addresses))
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STRICT_DNS" if any(is_name(one) for one in addresses) else "STATIC",
        "load_assignment": _assignment(name, list(addresses)),
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": _breakers(limit, service),
        "typed_extension_protocol_options": _http2(max_connection_duration=CONNECTION_LIFE),
        "transport_socket": tls.to_peer(proxy, service.name),
        **replica_selection(service, dns_name(service.name)),
    }
    return cluster


def replica_selection(service: Service, authority: str) -> dict[str, Any]:
    """
    Return the health checks and outlier detection of *service*.

    A replica that returns UNAVAILABLE because of one of its dependencies is healthy: only locally
    originated failures (connect failures, resets, missing responses) eject. A dead process behind a
    live proxy is detected by health checks, and at once by `errors.grpc_replies` of that proxy.

    Args:
        service: The callee; its policy has the limits.
        authority: The authority of health checks.
    """
    outlier = service.outlier
    return {
        # Unhealthy replicas get no calls, however few are left; if none is left, all get calls
        # again: a pause of two seconds that makes a probe time out is not an outage.
        "common_lb_config": {
            "healthy_panic_threshold": {"value": 1},
            # Health check results take effect at once, not up to a second later.
            "update_merge_window": "0s",
        },
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "consecutive_local_origin_failure": outlier.consecutive_failures,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_local_origin_success_rate": 0,
            "failure_percentage_threshold": _FAILING_PERCENT,
            "enforcing_failure_percentage_local_origin": 100,
            "failure_percentage_minimum_hosts": 1,
            "failure_percentage_request_volume": 2 * outlier.consecutive_failures,
            "interval": seconds(outlier.interval),
            "base_ejection_time": seconds(outlier.base_ejection_time),
            "max_ejection_percent": outlier.max_ejection_percent,
        },
        "health_checks": [_health_check(service, authority)],
        # A removed endpoint is dropped at once; calls in flight complete.
        "ignore_health_on_host_removal": True,
    }


def keys(proxy: Proxy) -> dict[str, Any]:
    """Return the cluster that serves the key set."""
    return _plain(KEYS, proxy.key_set)


def admin(proxy: Proxy) -> dict[str, Any]:
    """Return the cluster of the proxy's own admin interface."""
    return _plain(ADMIN, proxy.admin)


def collectors(proxy: Proxy) -> list[dict[str, Any]]:
    """Return the clusters of collectors; an unavailable collector costs nothing."""
    return [
        _plain(name, address) | {"typed_extension_protocol_options": _http2()}
        for name, address in proxy.telemetry.clusters.items()
    ]


def _plain(name: str, where: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "STRICT_DNS" if is_name(where) else "STATIC",
        "connect_timeout": "1s",
        "load_assignment": _assignment(name, [where]),
    }


def _assignment(name: str, addresses: list[str]) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": address(one)}} for one in addresses]
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}


def _breakers(limit: int, service: Service) -> dict[str, Any]:
    calls = {
        "#": f"service_policy of {service.full_name}",
        "priority": "DEFAULT",
        "max_requests": limit,
        "max_pending_requests": service.max_pending_requests,
        "retry_budget": {
            "budget_percent": {"value": RETRY_BUDGET_PERCENT},
            "min_retry_concurrency": LEAST_RETRIES,
        },
        "track_remaining": True,
    }
    streams = {"priority": "HIGH", "max_requests": _MOST_STREAMS, "track_remaining": True}
    return {"thresholds": [calls, streams]}


def _health_check(service: Service, authority: str) -> dict[str, Any]:
    return {
        # One probe of two seconds: each costs a call, and is most of what an idle mesh does.
        "timeout": "2s",
        "interval": "2s",
        "no_traffic_interval": "2s",
        # A recovered host is used again soon.
        "unhealthy_interval": "0.250s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "grpc_health_check": {"service_name": service.full_name, "authority": authority},
    }


def _http2(**common: str) -> dict[str, Any]:
    options: dict[str, Any] = {"common_http_protocol_options": dict(common)} if common else {}
    keepalive = {"connection_keepalive": {"interval": "30s", "timeout": "5s"}}
    options["explicit_http_config"] = {"http2_protocol_options": keepalive}
    return {_HTTP: typed(_HTTP, **options)}
