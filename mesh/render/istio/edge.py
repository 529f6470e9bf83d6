"""The edge for browsers: TLS, routes to the gateway, and limits."""

from datetime import timedelta

from mesh.contract.model import LONGEST_CALL
from mesh.contract.wire import LOG_OUT_PATHS
from mesh.render.deployment import EDGE, EDGE_NAMESPACE, Deployment, RenderError, Workload
from mesh.render.envoy import edge
from mesh.render.envoy.errors import json_replies
from mesh.render.istio.filters import ENVOY_FILTER, PRIORITY, SUPPRESSED, connection_manager
from mesh.render.istio.traffic import NO_RETRIES
from mesh.render.manifest import Files, Resource, duration, resource

GATEWAY = "networking.istio.io/v1 Gateway"
VIRTUAL_SERVICE = "networking.istio.io/v1 VirtualService"
LOG_OUT = "log-out"
SITE_HOST = "amarre.example.org"
CERTIFICATE = "edge-tls"
CONTEXT = "GATEWAY"
SLACK = timedelta(seconds=2)
"""Margin over the deadline of a call, so that the gateway's own response arrives first."""


def add(files: Files, deployed: Deployment) -> None:
    """
    Add the edge to *files*.

    Raises:
        RenderError: There is not exactly one workload that speaks HTTP.
    """
    behind = [w for w in deployed.workloads if not w.is_grpc]
    if len(behind) != 1:
        names = [w.name for w in behind]
        raise RenderError(f"mesh/topology.py: the edge needs one HTTP process, not {names}.")
    _gateway(files)
    _routes(files, deployed, behind[0])
    _filter(files)


def _gateway(files: Files) -> None:
    hosts = [SITE_HOST]
    http = {"number": 80, "name": "http", "protocol": "HTTP"}
    https = {"number": 443, "name": "https", "protocol": "HTTPS"}
    tls = {"mode": "SIMPLE", "credentialName": CERTIFICATE, "minProtocolVersion": "TLSV1_2"}
    files.add(
        f"gateway-{EDGE}.yaml",
        "Accepts HTTPS from browsers, and redirects HTTP to it.",
        resource(
            GATEWAY,
            EDGE,
            EDGE_NAMESPACE,
            spec={
                "selector": {"app": EDGE},
                "servers": [
                    {"port": http, "hosts": hosts, "tls": {"httpsRedirect": True}},
                    {"port": https, "hosts": hosts, "tls": tls},
                ],
            },
        ),
    )


def _routes(files: Files, deployed: Deployment, gateway: Workload) -> None:
    streams = [m for m in deployed.mesh if m.routes and m.stays_open]
    http: list[Resource] = [
        {
            "name": method.short_name,
            "match": [{"uri": {"exact": route.path}} for route in method.routes],
            **_to(gateway, method.deadline + SLACK),
        }
        for method in streams
    ]
    log_out = [{"uri": {"exact": path}} for path in LOG_OUT_PATHS]
    http.append({"name": LOG_OUT, "match": log_out, **_to(gateway, LONGEST_CALL + SLACK)})
    http.append({"name": "everything-else", **_to(gateway, LONGEST_CALL + SLACK)})
    files.add(
        f"virtual-service-{EDGE}.yaml",
        "Routes browsers to the gateway without retries, and adds the time of arrival.\n"
        "Streams may last as long as their contracts permit:\n"
        + "\n".join(f"  {m.name}: {duration(m.deadline)} ({m.source})" for m in streams),
        resource(
            VIRTUAL_SERVICE,
            EDGE,
            EDGE_NAMESPACE,
            spec={
                "hosts": [SITE_HOST],
                "gateways": [EDGE],
                "exportTo": ["."],
                "http": http,
            },
        ),
    )


def _to(gateway: Workload, timeout: timedelta) -> Resource:
    return {
        "headers": {"request": {"set": {edge.START_HEADER: edge.START}}},
        "route": [{"destination": {"host": gateway.host, "port": {"number": gateway.port}}}],
        "timeout": duration(timeout),
        "retries": dict(NO_RETRIES),
    }


def _filter(files: Files) -> None:
    router = {"name": "envoy.filters.http.router"}
    connections = {"name": "envoy.filters.network.http_connection_manager", "subFilter": router}
    before_router = {
        "applyTo": "HTTP_FILTER",
        "match": {"context": CONTEXT, "listener": {"filterChain": {"filter": connections}}},
    }
    strict = {
        **edge.from_clients(),
        "stream_idle_timeout": "60s",
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
    }
    files.add(
        f"envoy-filter-{EDGE}.yaml",
        "Applies the rules of the edge in mesh/envoy: the same limits per address, session\n"
        "and request, the same ignored headers, the same JSON errors. Istio has no resource "
        "for this.",
        resource(
            ENVOY_FILTER,
            # The name in 0.1.0, so that an upgrade replaces it.
            f"{EDGE}-rate-limit",
            EDGE_NAMESPACE,
            metadata={"annotations": SUPPRESSED},
            spec={
                "priority": PRIORITY,
                "workloadSelector": {"labels": {"app": EDGE}},
                "configPatches": [
                    connection_manager(
                        CONTEXT, local_reply_config=json_replies(hsts=None), **strict
                    ),
                    *(
                        {**before_router, "patch": {"operation": "INSERT_BEFORE", "value": one}}
                        for one in (*edge.client_limits(), edge.body_limit())
                    ),
                    {
                        "applyTo": "HTTP_ROUTE",
                        "match": {
                            "context": CONTEXT,
                            "routeConfiguration": {"vhost": {"route": {"name": LOG_OUT}}},
                        },
                        "patch": {
                            "operation": "MERGE",
                            "value": {"typed_per_filter_config": edge.any_body()},
                        },
                    },
                ],
            },
        ),
    )
