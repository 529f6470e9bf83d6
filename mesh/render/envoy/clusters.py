"""Where an Envoy sends calls: its own process, other services, Auth's keys, the collector."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from mesh.contract.policy import Service
from mesh.render.envoy import tls
from mesh.render.envoy.authorization import KEYS
from mesh.render.envoy.placement import (
    Endpoints,
    Proxy,
    address,
    canary_of,
    dns_name,
    is_name,
    seconds,
    typed,
)
from mesh.render.envoy.telemetry import OTLP

APP = "app"
"""The cluster of the process behind the proxy."""
APP_STREAMS = "app_streams"
"""The same process, for streams that stay open: they have limits of their own."""
ADMIN = "admin"
"""The cluster of the proxy's own admin interface."""
CONNECTION_LIFE = "60s"
"""Connections outlive certificates; this bounds how long."""
RETRY_BUDGET_PERCENT = 20.0
LEAST_RETRIES = 8
"""Retries in flight that the budget allows however few calls there are."""
CALLEES = PurePosixPath("clusters/callees.yaml")
"""The file of the clusters of other services, below the proxy's folder."""
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MOST_STREAMS = 1000
"""Streams that stay open have a limit of their own, so that they do not use up that of calls."""
_MOST_AT_GATEWAY = 64
"""
Requests at the gateway at once for one service, and for pages.

Each service has a share of its own, so that a slow one leaves room for the others. What is above is
refused here for a fraction of what the gateway would spend on it.
"""
_ALWAYS_AT_GATEWAY = 64
"""Further requests for health checks and log-out."""
_MOST_STREAMS_AT_GATEWAY = 600
"""Above the gateway's own limit, so that it explains a refusal."""
_FAILING_PERCENT = 40
"""
Share of failures that ejects. A time-out or reset counts once as a failure, and its connection once
as a success, so that all calls failing is 50 %, and this is two thirds of them.
"""


def service_app(proxy: Proxy, service: Service) -> dict[str, Any]:
    """Return the cluster of the service behind *proxy*; it sheds what is above the limit."""
    return {
        "name": APP,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": _breakers(service.max_concurrent_requests, service),
        "typed_extension_protocol_options": _http2(),
        "load_assignment": _assignment(APP, [proxy.app]),
    }


def at_gateway(service: str) -> str:
    """Return the cluster of requests that the gateway passes on to *service*."""
    return f"{APP}_{service}"


def gateway_app(proxy: Proxy, services: Iterable[Service]) -> list[dict[str, Any]]:
    """Return the clusters of the gateway behind *proxy*: pages, each of *services*, streams."""
    return [
        _gateway(
            proxy,
            APP,
            _gateway_limit("DEFAULT", _MOST_AT_GATEWAY),
            _gateway_limit("HIGH", _ALWAYS_AT_GATEWAY),
        ),
        *(
            _gateway(proxy, at_gateway(one.name), _gateway_limit("DEFAULT", _MOST_AT_GATEWAY))
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


def _gateway_limit(priority: str, most: int) -> dict[str, Any]:
    return {
        "priority": priority,
        "max_connections": most,
        "max_pending_requests": most,
        "max_requests": most,
        "track_remaining": True,
    }


def callees(proxy: Proxy, services: tuple[Service, ...], endpoints: Endpoints) -> dict[str, Any]:
    """
    Return the watched file with a cluster for each service, and for each canary that runs.

    One file for all of them: every watched file costs one of the kernel's inotify instances, of
    which a user has 128.
    """
    found = [_callee(proxy, service, service.name, endpoints) for service in services]
    found += [
        _callee(proxy, service, canary_of(service.name), endpoints)
        for service in services
        if endpoints.get(canary_of(service.name))
    ]
    return {"resources": [typed("envoy.config.cluster.v3.Cluster", **one) for one in found]}


def from_file(proxy: Proxy) -> dict[str, Any]:
    """Return where the clusters of other services are read from."""
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
    Return when a replica of *service* gets no calls.

    A replica that reports UNAVAILABLE about a system behind it is healthy: only failures of local
    origin (connect failures, resets, missing answers) eject. A process that is gone behind a live
    proxy is found by health checks, and at once by `errors.grpc_replies` of that proxy.

    Args:
        service: The callee; its policy has the limits.
        authority: What health checks name as their host.
    """
    outlier = service.outlier
    return {
        # Replicas that seem broken get nothing, however few are left; when none is left, all get
        # calls again: probes that a pause of two seconds lets time out are no outage.
        "common_lb_config": {
            "healthy_panic_threshold": {"value": 1},
            # What health checks find counts at once, not up to a second later.
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
        # An endpoint that is taken away goes at once; calls in flight end on their own.
        "ignore_health_on_host_removal": True,
    }


def keys(proxy: Proxy) -> dict[str, Any]:
    """Return the cluster from which the key set is fetched."""
    return _plain(KEYS, proxy.key_set)


def admin(proxy: Proxy) -> dict[str, Any]:
    """Return the cluster of the proxy's own admin interface."""
    return _plain(ADMIN, proxy.admin)


def collector(proxy: Proxy) -> dict[str, Any]:
    """Return the cluster that spans go to; a collector that is away costs nothing."""
    return _plain(OTLP, proxy.telemetry.otlp) | {"typed_extension_protocol_options": _http2()}


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
        "timeout": "1s",
        "interval": "1s",
        "no_traffic_interval": "1s",
        # One that comes back is taken in again soon.
        "unhealthy_interval": "0.250s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "grpc_health_check": {"service_name": service.full_name, "authority": authority},
    }


def _http2(**common: str) -> dict[str, Any]:
    options: dict[str, Any] = {"common_http_protocol_options": dict(common)} if common else {}
    keepalive = {"connection_keepalive": {"interval": "30s", "timeout": "5s"}}
    options["explicit_http_config"] = {"http2_protocol_options": keepalive}
    return {_HTTP: typed(_HTTP, **options)}
