"""Authorization: mTLS everywhere, deny by default, then one policy per workload."""

from collections.abc import Iterable
from typing import Any

from mesh.chassis.tokens import ISSUER
from mesh.contract.policy import Method
from mesh.render.deployment import (
    APP_NAMESPACE,
    EDGE,
    EDGE_NAMESPACE,
    HEALTH_SERVICE,
    KEY_SET_PATH,
    KEY_SET_PORT,
    OPERATOR,
    REFLECTION,
    Deployment,
    Workload,
    principal,
)
from mesh.render.manifest import Files, Resource, resource

PEER_AUTHENTICATION = "security.istio.io/v1 PeerAuthentication"
AUTHORIZATION_POLICY = "security.istio.io/v1 AuthorizationPolicy"
REQUEST_AUTHENTICATION = "security.istio.io/v1 RequestAuthentication"
GRPC_ONLY = {"key": "request.headers[content-type]", "values": ["application/grpc*"]}
"""Without it, JSON could reach gRPC routes, where gRPC limits do not apply."""


def add(files: Files, deployed: Deployment) -> None:
    """Add the security resources of *deployed* to *files*."""
    for namespace in deployed.namespaces:
        files.add(
            f"peer-authentication-{namespace}.yaml",
            f"Requires mutual TLS in {namespace}: callers without an identity are rejected.",
            resource(PEER_AUTHENTICATION, "default", namespace, spec={"mtls": {"mode": "STRICT"}}),
        )
        files.add(
            f"authorization-policy-{namespace}.yaml",
            f"Denies every call in {namespace}; permissions are in separate files.",
            resource(AUTHORIZATION_POLICY, "deny-by-default", namespace, spec={"action": "ALLOW"}),
        )
    for workload in deployed.workloads:
        if workload.is_grpc:
            _allow_service(files, deployed, workload)
        else:
            _allow_edge(files, workload)
        if deployed.needs_keys(workload.name):
            _request_authentication(files, deployed, workload)
    _allow_edge_itself(files)


def _allow_service(files: Files, deployed: Deployment, workload: Workload) -> None:
    methods = deployed.mesh.service(workload.name).methods
    rules = [_rule(deployed, workload, group) for group in _groups(methods)]
    rules += _infrastructure(deployed, workload)
    if workload.name == "auth":
        rules.append(_key_set(deployed))
    files.add(
        f"authorization-policy-{workload.name}.yaml",
        f"Permits the callers in the contract to call {workload.name}, method by method.\n"
        "Mirrors policy.callers, policy.session and policy.roles:\n"
        + "\n".join(
            f"  {m.name}: {', '.join(m.callers)}"
            f"{' with a signed-in user' if m.needs_session else ''} ({m.source})"
            for m in methods
        ),
        _policy(workload.name, workload.namespace, {"app": workload.name}, rules),
    )


def _policy(name: str, namespace: str, labels: dict[str, str], rules: list[Any]) -> Resource:
    return resource(
        AUTHORIZATION_POLICY,
        name,
        namespace,
        spec={"selector": {"matchLabels": labels}, "action": "ALLOW", "rules": rules},
    )


def _groups(methods: Iterable[Method]) -> list[list[Method]]:
    """Group methods with the same callers and conditions."""
    groups: dict[tuple[object, ...], list[Method]] = {}
    for method in methods:
        key = (frozenset(method.callers), method.needs_session, method.roles)
        groups.setdefault(key, []).append(method)
    return list(groups.values())


def _rule(deployed: Deployment, workload: Workload, group: list[Method]) -> Resource:
    first = group[0]
    source: Resource = {"principals": _principals(deployed, first)}
    when: list[Resource] = [GRPC_ONLY]
    if first.needs_session:
        source["requestPrincipals"] = [f"{ISSUER}/*"]
        when.append({"key": "request.auth.audiences", "values": [workload.name]})
    if first.roles:
        when.append({"key": "request.auth.claims[labels]", "values": list(first.roles)})
    return {
        "from": [{"source": source}],
        "to": [_operation(workload, [method.path for method in group])],
        "when": when,
    }


def _operation(workload: Workload, paths: list[str]) -> Resource:
    return {"operation": {"methods": ["POST"], "ports": [str(workload.port)], "paths": paths}}


def _principals(deployed: Deployment, method: Method) -> list[str]:
    if method.allows("*"):
        return sorted(w.principal for w in deployed.workloads)
    return [deployed.principal_of(caller) for caller in method.callers]


def _infrastructure(deployed: Deployment, workload: Workload) -> list[Resource]:
    """Return the rules for health checks by callers' proxies, and for operators' reflection."""
    operator = principal(APP_NAMESPACE, OPERATOR)
    askers = sorted({w.principal for w in deployed.callers(workload.name)})
    return [
        {
            "from": [{"source": {"principals": sources}}],
            "to": [_operation(workload, [f"{prefix}*" for prefix in prefixes])],
            "when": [GRPC_ONLY],
        }
        for sources, prefixes in (
            ([*askers, operator], (HEALTH_SERVICE,)),
            ([operator], REFLECTION),
        )
    ]


def _key_set(deployed: Deployment) -> Resource:
    readers = [w.principal for w in deployed.workloads if deployed.needs_keys(w.name)]
    operation = {"methods": ["GET"], "ports": [str(KEY_SET_PORT)], "paths": [KEY_SET_PATH]}
    return {
        "from": [{"source": {"principals": readers}}],
        "to": [{"operation": operation}],
    }


def _allow_edge(files: Files, workload: Workload) -> None:
    files.add(
        f"authorization-policy-{workload.name}.yaml",
        f"Permits only the edge to call {workload.name}, which handles sessions.",
        _policy(
            workload.name,
            workload.namespace,
            {"app": workload.name},
            [
                {
                    "from": [{"source": {"principals": [principal(EDGE_NAMESPACE, EDGE)]}}],
                    "to": [{"operation": {"ports": [str(workload.port)]}}],
                }
            ],
        ),
    )


def _allow_edge_itself(files: Files) -> None:
    files.add(
        f"authorization-policy-{EDGE}.yaml",
        "Permits browsers to call the edge, the only workload that accepts callers without "
        "an identity.",
        _policy(
            EDGE,
            EDGE_NAMESPACE,
            {"app": EDGE},
            [{"to": [{"operation": {"methods": ["GET", "HEAD", "POST", "PUT", "DELETE"]}}]}],
        ),
    )


def _request_authentication(files: Files, deployed: Deployment, workload: Workload) -> None:
    auth = deployed.workload("auth")
    files.add(
        f"request-authentication-{workload.name}.yaml",
        f"Checks user tokens for {workload.name}: issuer, audience, signature, expiry. Mirrors\n"
        "policy.session; the service repeats the checks more strictly. The proxies fetch the key\n"
        "set themselves (PILOT_JWT_ENABLE_REMOTE_JWKS in ../istiod-values.yaml).",
        resource(
            REQUEST_AUTHENTICATION,
            workload.name,
            workload.namespace,
            spec={
                "selector": {"matchLabels": {"app": workload.name}},
                "jwtRules": [
                    {
                        "issuer": ISSUER,
                        "audiences": [workload.name],
                        "jwksUri": f"http://{auth.host}:{KEY_SET_PORT}{KEY_SET_PATH}",
                        "forwardOriginalToken": True,
                        "timeout": "1s",
                    }
                ],
            },
        ),
    )
