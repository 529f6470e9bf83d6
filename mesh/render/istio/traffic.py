"""Traffic policy: timeouts and retries per method, weights, breakers, ejection, identities."""

from datetime import timedelta

from mesh.contract.policy import Method, Service
from mesh.contract.wire import CANARY_HEADER
from mesh.render.deployment import (
    EDGE_NAMESPACE,
    HEALTH_SERVICE,
    KEY_SET_PATH,
    KEY_SET_PORT,
    REFLECTION,
    Deployment,
    Workload,
)
from mesh.render.envoy.clusters import CONNECTION_LIFE, LEAST_RETRIES, RETRY_BUDGET_PERCENT
from mesh.render.envoy.routes import MOST_RETRIES, RETRY_ON
from mesh.render.manifest import Files, Resource, duration, resource

VIRTUAL_SERVICE = "networking.istio.io/v1 VirtualService"
DESTINATION_RULE = "networking.istio.io/v1 DestinationRule"
NO_RETRIES = {"attempts": 0}
"""Explicit, since Istio retries twice by default."""
STABLE, CANARY, STREAMS = "stable", "canary", "streams"
MOST_STREAMS = 1024
"""Long-lived streams have a separate circuit breaker, so that they do not use up that of calls."""


def add(files: Files, deployed: Deployment) -> None:
    """Add the traffic resources of *deployed* to *files*."""
    for workload in deployed.workloads:
        # Istio rejects the own namespace in addition to ".", which means the same.
        callers = {w.namespace for w in _seen_by(deployed, workload)}
        exported = sorted({".", *callers} - {workload.namespace})
        if workload.is_grpc:
            service = deployed.mesh.service(workload.name)
            _virtual_service(files, workload, service, exported)
            _destination_rule(files, workload, service, exported)
        else:
            _http_destination_rule(files, workload)


def _seen_by(deployed: Deployment, workload: Workload) -> list[Workload]:
    callers = list(deployed.callers(workload.name))
    if workload.name == "auth":
        callers += [w for w in deployed.workloads if deployed.needs_keys(w.name)]
    return callers


def per_try(method: Method) -> timedelta:
    """Return the per-try timeout: half of the deadline, so that a second attempt fits."""
    return method.deadline / 2


def retries(method: Method) -> Resource:
    """Return the retry policy of *method*; no retries unless it is declared idempotent."""
    if not method.may_retry:
        return dict(NO_RETRIES)
    return {
        "attempts": MOST_RETRIES,
        "perTryTimeout": duration(per_try(method)),
        "retryOn": RETRY_ON,
    }


def _virtual_service(
    files: Files, workload: Workload, service: Service, exported: list[str]
) -> None:
    http = [route for method in service.methods for route in _routes(workload, method)]
    http.append(_infrastructure(workload))
    if workload.name == "auth":
        http.append(_key_set(workload))
    files.add(
        f"virtual-service-{workload.name}.yaml",
        f"Timeout and retries of each method of {workload.name}. A canary gets calls by weight,\n"
        "and every call with x-canary: 1; without a canary, both subsets are the same pods.\n"
        "Mirrors policy.deadline and idempotency_level:\n"
        + "\n".join(
            f"  {m.name}: {duration(m.deadline)}, "
            f"{'may be retried' if m.may_retry else 'never retried'} ({m.source})"
            for m in service.methods
        ),
        resource(
            VIRTUAL_SERVICE,
            workload.name,
            workload.namespace,
            spec={"hosts": [workload.host], "exportTo": exported, "http": http},
        ),
    )


def _routes(workload: Workload, method: Method) -> list[Resource]:
    policy = {"timeout": duration(method.deadline), "retries": retries(method)}
    path = {"uri": {"exact": method.path}}
    if method.stays_open:
        route = {"route": [_destination(workload, STREAMS)], **policy}
        return [{"name": method.name, "match": [path], **route}]
    return [
        {
            "name": f"{method.name}-canary",
            "match": [{**path, "headers": {CANARY_HEADER: {"exact": "1"}}}],
            "route": [_destination(workload, CANARY)],
            **policy,
        },
        {
            "name": method.name,
            "match": [path],
            "route": [
                {**_destination(workload, STABLE), "weight": 100},
                {**_destination(workload, CANARY), "weight": 0},
            ],
            **policy,
        },
    ]


def _infrastructure(workload: Workload) -> Resource:
    return {
        "name": "infrastructure",
        "match": [{"uri": {"prefix": prefix}} for prefix in (HEALTH_SERVICE, *REFLECTION)],
        "route": [_destination(workload, STABLE)],
        "timeout": "5s",
        "retries": dict(NO_RETRIES),
    }


def _key_set(auth: Workload) -> Resource:
    return {
        "name": "key-set",
        "match": [{"uri": {"exact": KEY_SET_PATH}, "port": KEY_SET_PORT}],
        "route": [{"destination": {"host": auth.host, "port": {"number": KEY_SET_PORT}}}],
        "timeout": "2s",
        "retries": {"attempts": 1, "perTryTimeout": "1s", "retryOn": RETRY_ON},
    }


def _destination(workload: Workload, subset: str) -> Resource:
    return {
        "destination": {
            "host": workload.host,
            "port": {"number": workload.port},
            "subset": subset,
        }
    }


def _destination_rule(
    files: Files, workload: Workload, service: Service, exported: list[str]
) -> None:
    outlier = service.outlier
    policy = {
        **_connections(workload),
        "retryBudget": {"percent": int(RETRY_BUDGET_PERCENT), "minRetryConcurrency": LEAST_RETRIES},
        "outlierDetection": {
            # UNAVAILABLE (503, a gateway error) may be caused by a dependency of a healthy replica.
            "splitExternalLocalOriginErrors": True,
            "consecutiveLocalOriginFailures": outlier.consecutive_failures,
            "consecutiveGatewayErrors": 0,
            "consecutive5xxErrors": 0,
            "interval": duration(outlier.interval),
            "baseEjectionTime": duration(outlier.base_ejection_time),
            "maxEjectionPercent": outlier.max_ejection_percent,
            # Never send calls to ejected replicas again because many are ejected.
            "minHealthPercent": 0,
        },
    }
    policy["connectionPool"]["http"] |= {
        "http1MaxPendingRequests": service.max_pending_requests,
        "http2MaxRequests": service.max_concurrent_requests,
    }
    labels = {"app": workload.name}
    for_streams = {"connectionPool": _connections(workload)["connectionPool"]}
    for_streams["connectionPool"]["http"] |= {"http2MaxRequests": MOST_STREAMS}
    files.add(
        f"destination-rule-{workload.name}.yaml",
        f"Limits concurrent calls to {workload.name}, ejects failing replicas, and requires its\n"
        "identity. Mirrors service_policy:\n"
        f"  max_concurrent_requests {service.max_concurrent_requests}, max_pending_requests "
        f"{service.max_pending_requests},\n"
        f"  outlier {outlier.consecutive_failures} consecutive, for "
        f"{duration(outlier.base_ejection_time)}, at most {outlier.max_ejection_percent} %\n"
        f"  ({service.full_name})",
        resource(
            DESTINATION_RULE,
            workload.name,
            workload.namespace,
            spec={
                "host": workload.host,
                "exportTo": exported,
                "trafficPolicy": policy,
                "subsets": [
                    {"name": STABLE, "labels": labels},
                    {"name": CANARY, "labels": labels},
                    {"name": STREAMS, "labels": labels, "trafficPolicy": for_streams},
                ],
            },
        ),
    )


def _connections(workload: Workload) -> Resource:
    return {
        "tls": {"mode": "ISTIO_MUTUAL", "subjectAltNames": [workload.spiffe_id]},
        "loadBalancer": {"simple": "LEAST_REQUEST"},
        "connectionPool": {
            "tcp": {"connectTimeout": "1s", "maxConnectionDuration": CONNECTION_LIFE},
            "http": {"maxRequestsPerConnection": 0},
        },
    }


def _http_destination_rule(files: Files, workload: Workload) -> None:
    files.add(
        f"destination-rule-{workload.name}.yaml",
        f"Requires the identity of {workload.name} and limits the age of connections.",
        resource(
            DESTINATION_RULE,
            workload.name,
            workload.namespace,
            spec={
                "host": workload.host,
                "exportTo": [".", EDGE_NAMESPACE],
                "trafficPolicy": {
                    **_connections(workload),
                    "outlierDetection": {
                        "splitExternalLocalOriginErrors": True,
                        "consecutiveLocalOriginFailures": 5,
                        "consecutiveGatewayErrors": 0,
                        "consecutive5xxErrors": 0,
                        "interval": "1s",
                        "baseEjectionTime": "5s",
                        "maxEjectionPercent": 50,
                        "minHealthPercent": 0,
                    },
                },
            },
        ),
    )
