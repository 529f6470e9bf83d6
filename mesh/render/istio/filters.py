"""
EnvoyFilters for each workload, for what Istio's own resources cannot express.

They use the same code as local Envoys (`mesh.render.envoy`), so that callers see the same codes,
error details, deadlines and retries locally and in production.
"""

from typing import Any

from mesh.contract.policy import Method, Service
from mesh.render.deployment import KEY_SET_PORT, Deployment, Workload
from mesh.render.envoy import authorization, clusters, errors, manager, retry_budget, routes
from mesh.render.manifest import Files, Resource, resource
from mesh.render.yaml_text import COMMENT

ENVOY_FILTER = "networking.istio.io/v1alpha3 EnvoyFilter"
SUPPRESSED = {"galley.istio.io/analyze-suppress": "IST0133"}
"""The warning that an EnvoyFilter depends on internals: `make test-cluster` checks the result."""
PRIORITY = 10
"""After Istio's own filters, which these refer to."""
OUTBOUND, INBOUND = "SIDECAR_OUTBOUND", "SIDECAR_INBOUND"
PAYLOAD = "payload"
"""The metadata key under which Istio's authorization finds the claims of a token."""
_HCM = "envoy.filters.network.http_connection_manager"
_HCM_TYPE = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
    "HttpConnectionManager"
)
_TLS_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_STEERING = ("x-envoy-upstream-", "x-envoy-retry-", "x-envoy-max-", "x-envoy-hedge-")
"""Request headers that control a proxy; other ``x-envoy-`` headers are Istio's own."""


def add(files: Files, deployed: Deployment) -> None:
    """Add the filters of each workload of *deployed* to *files*."""
    for workload in deployed.workloads:
        callees = deployed.callees(workload.name)
        patches = [*_inbound(deployed, workload)]
        if callees:
            patches += _outbound(deployed, callees)
        files.add(
            f"envoy-filter-{workload.name}.yaml",
            f"Settings of {workload.name} without an Istio resource: error details, deadlines\n"
            "at the callee's proxy, retries and their budget, and strict parsing of requests\n"
            "and user tokens, as in mesh/envoy.",
            resource(
                ENVOY_FILTER,
                workload.name,
                workload.namespace,
                metadata={"annotations": SUPPRESSED},
                spec={
                    "priority": PRIORITY,
                    "workloadSelector": {"labels": {"app": workload.name}},
                    "configPatches": [_without_comments(patch) for patch in patches],
                },
            ),
        )


def connection_manager(context: str, **fields: Any) -> Resource:
    """Return the patch that merges *fields* into the connection managers of *context*."""
    return {
        "applyTo": "NETWORK_FILTER",
        "match": {"context": context, "listener": {"filterChain": {"filter": {"name": _HCM}}}},
        "patch": {
            "operation": "MERGE",
            "value": {"name": _HCM, "typed_config": {"@type": _HCM_TYPE, **fields}},
        },
    }


def _without_comments(node: Any) -> Any:
    """Return *node* without the comments of rendered files of Envoy."""
    if isinstance(node, list):
        return [_without_comments(value) for value in node]
    if not isinstance(node, dict):
        return node
    return {key: _without_comments(value) for key, value in node.items() if key != COMMENT}


def _strict() -> Resource:
    """Return the options for parsing requests."""
    return {
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        **manager.forget(prefixes=_STEERING, every=False),
    }


def _inbound(deployed: Deployment, workload: Workload) -> list[Resource]:
    if not workload.is_grpc:
        return [connection_manager(INBOUND, **_strict())]
    service = deployed.mesh.service(workload.name)
    patches = [
        connection_manager(
            INBOUND,
            local_reply_config=errors.grpc_replies(for_callers=True),
            http2_protocol_options=manager.grpc_options()["http2_protocol_options"],
            **_strict(),
        ),
        {
            "applyTo": "LISTENER",
            "match": {"context": INBOUND, "listener": {"name": "virtualInbound"}},
            "patch": {
                "operation": "MERGE",
                "value": {"per_connection_buffer_limit_bytes": manager.BUFFER_BYTES},
            },
        },
    ]
    patches += [_deadline(workload, method) for method in reversed(service.methods)]
    auth = deployed.workload("auth")
    keys = f"outbound|{KEY_SET_PORT}||{auth.host}"
    for tokens in authorization.jwt(service, cluster=keys, payload=PAYLOAD):
        patches.append(
            {
                "applyTo": "HTTP_FILTER",
                "match": _http_filter(INBOUND, tokens["name"]),
                "patch": {"operation": "REPLACE", "value": tokens},
            }
        )
    return patches


def _deadline(workload: Workload, method: Method) -> Resource:
    """Return the route of *method* at its callee; Istio has one route for all of them."""
    route = routes.inbound_route(method, cluster=f"inbound|{workload.port}||")
    return {
        "applyTo": "HTTP_ROUTE",
        "match": {
            "context": INBOUND,
            "routeConfiguration": {"vhost": {"name": f"inbound|http|{workload.port}"}},
        },
        "patch": {"operation": "INSERT_FIRST", "value": route},
    }


def _outbound(deployed: Deployment, callees: tuple[Workload, ...]) -> list[Resource]:
    patches = [
        connection_manager(OUTBOUND, local_reply_config=errors.grpc_replies(), **_strict()),
        {
            "applyTo": "HTTP_FILTER",
            "match": _http_filter(OUTBOUND, "envoy.filters.http.router"),
            "patch": {"operation": "INSERT_BEFORE", "value": retry_budget.http_filter()},
        },
    ]
    for callee in callees:
        service = deployed.mesh.service(callee.name)
        patches += [_tls(callee), _replicas(callee, service), _attempts(callee)]
        for method in service.methods:
            names = [method.name] if method.stays_open else [method.name, f"{method.name}-canary"]
            patches += [_travel(callee, method, name) for name in names]
    return patches


def _tls(callee: Workload) -> Resource:
    """Return the patch for TLS 1.3 towards *callee*; ``meshMTLS`` covers callees only."""
    parameters = {"tls_minimum_protocol_version": "TLSv1_3"}
    context = {"@type": _TLS_TYPE, "common_tls_context": {"tls_params": parameters}}
    socket = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return {
        "applyTo": "CLUSTER",
        "match": {"context": OUTBOUND, "cluster": {"service": callee.host}},
        "patch": {"operation": "MERGE", "value": {"transport_socket": socket}},
    }


def _replicas(callee: Workload, service: Service) -> Resource:
    """Return the patch for health checks and for shares of failures, which Istio cannot express."""
    return {
        "applyTo": "CLUSTER",
        "match": {
            "context": OUTBOUND,
            "cluster": {"service": callee.host, "portNumber": callee.port},
        },
        "patch": {
            "operation": "MERGE",
            "value": clusters.replica_selection(service, callee.host),
        },
    }


def _attempts(callee: Workload) -> Resource:
    """Return the patch that reports the number of attempts to the retry budget."""
    return {
        "applyTo": "VIRTUAL_HOST",
        "match": {
            "context": OUTBOUND,
            "routeConfiguration": {"vhost": {"name": f"{callee.host}:{callee.port}"}},
        },
        "patch": {"operation": "MERGE", "value": {"include_attempt_count_in_response": True}},
    }


def _travel(callee: Workload, method: Method, name: str) -> Resource:
    """Return the deadline and retries of *method* at its callers, on the route *name*."""
    found = routes.limits(method) | routes.retries(method)
    # Istio already sets both; a merge would append to lists.
    for known in ("timeout", "retry_policy"):
        found.pop(known, None)
    where = {"name": f"{callee.host}:{callee.port}", "route": {"name": name}}
    operation = method.path.removeprefix("/")
    return {
        "applyTo": "HTTP_ROUTE",
        "match": {"context": OUTBOUND, "routeConfiguration": {"vhost": where}},
        "patch": {
            "operation": "MERGE",
            "value": {"decorator": {"operation": operation}, "route": found},
        },
    }


def _http_filter(context: str, name: str) -> Resource:
    connections = {"name": _HCM, "subFilter": {"name": name}}
    return {"context": context, "listener": {"filterChain": {"filter": connections}}}
