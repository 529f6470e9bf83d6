"""Listeners inside the mesh: for callers, for the proxy's own process, for Prometheus."""

from typing import Any

from mesh.contract.policy import Service
from mesh.render.envoy import authorization, manager, telemetry, tls
from mesh.render.envoy.clusters import ADMIN, CONNECTION_LIFE
from mesh.render.envoy.errors import grpc_replies
from mesh.render.envoy.proxy import EGRESS, INBOUND, STATS, Proxy
from mesh.render.envoy.retry_budget import http_filter


def inbound(proxy: Proxy, service: Service) -> dict[str, Any]:
    """Return the listener for callers: mTLS, authorization, token, faults, then the process."""
    filters = [
        *authorization.rbac(service),
        *authorization.jwt(service),
        manager.fault_filter(),
        manager.router(),
    ]
    hcm = manager.manager(
        INBOUND,
        **manager.grpc_options(),
        **manager.forget(),
        **manager.routes_from_file(proxy, INBOUND),
        # The caller's identity and certificates for the service, which checks more than TLS does;
        # a client's header of this name is dropped.
        forward_client_cert_details="SANITIZE_SET",
        set_current_client_cert_details={"uri": True, "chain": True},
        common_http_protocol_options={"max_connection_duration": CONNECTION_LIFE},
        drain_timeout="2s",
        stream_idle_timeout="0s",
        local_reply_config=grpc_replies(for_callers=True),
        access_log=telemetry.access_log(proxy, INBOUND),
        **telemetry.tracing(proxy, INBOUND),
        http_filters=filters,
    )
    return manager.listener(INBOUND, proxy.inbound, hcm, tls.from_peers(proxy))


def egress(proxy: Proxy) -> dict[str, Any]:
    """Return the listener for the own process: a Unix socket, no TLS, routing by authority."""
    hcm = manager.manager(
        EGRESS,
        **manager.grpc_options(),
        **manager.forget(exact=["x-forwarded-client-cert"]),
        **manager.routes_from_file(proxy, EGRESS),
        generate_request_id=True,
        stream_idle_timeout="0s",
        local_reply_config=grpc_replies(),
        access_log=telemetry.access_log(proxy, EGRESS),
        **telemetry.tracing(proxy, EGRESS),
        http_filters=[telemetry.method_statistics(), http_filter(), manager.router()],
    )
    return manager.listener(EGRESS, proxy.egress, hcm, for_strangers=False)


def stats(proxy: Proxy) -> dict[str, Any]:
    """Return the listener for Prometheus: one path of the admin interface, read-only."""
    only = {
        "path": "/stats/prometheus",
        "headers": [{"name": ":method", "string_match": {"exact": "GET"}}],
    }
    host = {
        "name": STATS,
        "domains": ["*"],
        "routes": [{"match": only, "route": {"cluster": ADMIN}}],
    }
    hcm = manager.manager(
        STATS,
        route_config={"name": STATS, "virtual_hosts": [host]},
        http_filters=[manager.router()],
    )
    return manager.listener(STATS, proxy.stats, hcm, for_strangers=False)
