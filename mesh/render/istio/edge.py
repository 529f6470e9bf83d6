"""The way in for browsers: TLS, the routes of the gateway, and limits before it."""

from datetime import timedelta

from mesh.contract.model import LONGEST_CALL
from mesh.render.deployment import EDGE, EDGE_NAMESPACE, Deployment, RenderError, Workload
from mesh.render.istio.filters import ENVOY_FILTER, PRIORITY, SUPPRESSED
from mesh.render.istio.traffic import NO_RETRIES
from mesh.render.manifest import Files, Resource, duration, resource

GATEWAY = "networking.istio.io/v1 Gateway"
VIRTUAL_SERVICE = "networking.istio.io/v1 VirtualService"
SITE_HOST = "amarre.example.org"
CERTIFICATE = "edge-tls"
SLACK = timedelta(seconds=2)
"""What a request may take beyond the deadline of its call, so that the gateway answers first."""
FORGEABLE = ("x-forwarded-client-cert", "authorization", "x-envoy-decorator-operation")
REQUESTS_PER_MINUTE = 600
"""Per address at each replica of the edge; the gateway's own limits are finer."""


def add(files: Files, deployed: Deployment) -> None:
    """
    Add the edge to *files*.

    Raises:
        RenderError: There is not exactly one workload that speaks HTTP.
    """
    behind = [w for w in deployed.workloads if not w.is_grpc]
    if len(behind) != 1:
        names = [w.name for w in behind]
        raise RenderError(f"mesh/topology.py: the edge leads to one HTTP process, not to {names}.")
    _gateway(files)
    _routes(files, deployed, behind[0])
    _rate_limit(files)


def _gateway(files: Files) -> None:
    hosts = [SITE_HOST]
    http = {"number": 80, "name": "http", "protocol": "HTTP"}
    https = {"number": 443, "name": "https", "protocol": "HTTPS"}
    tls = {"mode": "SIMPLE", "credentialName": CERTIFICATE, "minProtocolVersion": "TLSV1_2"}
    files.add(
        f"gateway-{EDGE}.yaml",
        "Takes HTTPS from browsers; what comes by HTTP is sent there.",
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
    http.append({"name": "everything-else", **_to(gateway, LONGEST_CALL + SLACK)})
    files.add(
        f"virtual-service-{EDGE}.yaml",
        "Routes browsers to the gateway, never retries, removes headers that only the mesh sets.\n"
        "Streams may last as long as the contract lets them:\n"
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
        "headers": {"request": {"remove": list(FORGEABLE)}},
        "route": [{"destination": {"host": gateway.host, "port": {"number": gateway.port}}}],
        "timeout": duration(timeout),
        "retries": dict(NO_RETRIES),
    }


def _rate_limit(files: Files) -> None:
    per_address = _bucket(REQUESTS_PER_MINUTE)
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    filter_type = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3"
    config = {
        "@type": f"{filter_type}.LocalRateLimit",
        "stat_prefix": "edge",
        "token_bucket": _bucket(REQUESTS_PER_MINUTE * 20),
        "filter_enabled": {"runtime_key": "edge.rate_limit.enabled", **always},
        "filter_enforced": {"runtime_key": "edge.rate_limit.enforced", **always},
        "rate_limits": [{"actions": [{"masked_remote_address": {"v6_prefix_mask_len": 64}}]}],
        "descriptors": [
            {"entries": [{"key": "masked_remote_address"}], "token_bucket": per_address}
        ],
        "max_dynamic_descriptors": 20_000,
    }
    router = {"name": "envoy.filters.http.router"}
    connections = {"name": "envoy.filters.network.http_connection_manager", "subFilter": router}
    files.add(
        f"envoy-filter-{EDGE}.yaml",
        f"Lets an address ask {REQUESTS_PER_MINUTE} times a minute; forged headers change nothing, "
        "since\nthe address is that of the connection. Istio has no resource of its own for this.",
        resource(
            ENVOY_FILTER,
            f"{EDGE}-rate-limit",
            EDGE_NAMESPACE,
            metadata={"annotations": SUPPRESSED},
            spec={
                "priority": PRIORITY,
                "workloadSelector": {"labels": {"app": EDGE}},
                "configPatches": [
                    {
                        "applyTo": "HTTP_FILTER",
                        "match": {
                            "context": "GATEWAY",
                            "listener": {"filterChain": {"filter": connections}},
                        },
                        "patch": {
                            "operation": "INSERT_BEFORE",
                            "value": {
                                "name": "envoy.filters.http.local_ratelimit",
                                "typed_config": config,
                            },
                        },
                    }
                ],
            },
        ),
    )


def _bucket(per_minute: int) -> Resource:
    return {"max_tokens": per_minute, "tokens_per_fill": per_minute, "fill_interval": "60s"}
