"""Network policies: deny by default, then permit declared callers and dependencies."""

from collections.abc import Iterable

from mesh.contract.model import CLIENTS
from mesh.render.deployment import (
    APP_NAMESPACE,
    EDGE,
    EDGE_NAMESPACE,
    KEY_SET_PORT,
    MONITORING,
    Deployment,
    Workload,
)
from mesh.render.kubernetes.workloads import MIGRATION
from mesh.render.manifest import Files, Resource, resource

NETWORK_POLICY = "networking.k8s.io/v1 NetworkPolicy"
ISTIO_NAMESPACE = "istio-system"
ISTIOD_PORT = 15012
PROXY_METRICS_PORT = 15020
OTLP_PORT = 4317
DNS_PORTS = (53, 5353)
NODE_LOCAL_DNS = "169.254.20.10/32"
"""The link-local address of NodeLocal DNSCache on every node."""
WORLD = {"ipBlock": {"cidr": "0.0.0.0/0"}}
PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")


def add(files: Files, deployed: Deployment) -> None:
    """Add the network policies of *deployed* to *files*."""
    for namespace in deployed.namespaces:
        _deny(files, namespace)
        _platform(files, namespace)
        _dns(files, namespace)
    for workload in deployed.workloads:
        _workload(files, deployed, workload)
    _edge(files, deployed)
    _migration(files, deployed)


def _deny(files: Files, namespace: str) -> None:
    files.add(
        f"network-policy-{namespace}.yaml",
        f"Denies every packet from and to pods of {namespace}; permissions are in separate files.",
        resource(
            NETWORK_POLICY,
            "deny-by-default",
            namespace,
            spec={"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        ),
    )


def _platform(files: Files, namespace: str) -> None:
    files.add(
        f"network-policy-{namespace}-platform.yaml",
        "Permits proxies to reach istiod, export of telemetry, and scraping of metrics.",
        resource(
            NETWORK_POLICY,
            "platform",
            namespace,
            spec={
                "podSelector": {},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [_from([_namespace(MONITORING)], [PROXY_METRICS_PORT])],
                "egress": [
                    _to([_namespace(ISTIO_NAMESPACE)], [ISTIOD_PORT]),
                    _to([_namespace(MONITORING)], [OTLP_PORT]),
                ],
            },
        ),
    )


def _dns(files: Files, namespace: str) -> None:
    ports = [
        {"protocol": protocol, "port": port} for port in DNS_PORTS for protocol in ("UDP", "TCP")
    ]
    files.add(
        f"network-policy-{namespace}-dns.yaml",
        "Lets every pod resolve names: by the cluster's DNS, by NodeLocal DNSCache, or by that of\n"
        "OpenShift, whose pods listen on 5353.",
        resource(
            NETWORK_POLICY,
            "dns",
            namespace,
            spec={
                "podSelector": {},
                "policyTypes": ["Egress"],
                "egress": [
                    {
                        "to": [
                            _namespace("kube-system"),
                            _namespace("openshift-dns"),
                            {"ipBlock": {"cidr": NODE_LOCAL_DNS}},
                        ],
                        "ports": ports,
                    }
                ],
            },
        ),
    )


def _workload(files: Files, deployed: Deployment, workload: Workload) -> None:
    ingress = [_from(_pods(_callers(deployed, workload)), [workload.port])]
    if workload.name == "auth":
        readers = [w for w in deployed.workloads if deployed.needs_keys(w.name)]
        ingress.append(_from(_pods(readers), [KEY_SET_PORT]))
    egress = [_to(_pods([w]), [w.port]) for w in deployed.callees(workload.name)]
    if deployed.needs_keys(workload.name):
        egress.append(_to(_pods([deployed.workload("auth")]), [KEY_SET_PORT]))
    ports = sorted({e.port for e in deployed.reached_by(workload.name)})
    if ports:
        egress.append(_to([WORLD], ports))
    if workload.name == "health":
        # It probes only public hosts; the list of hosts is a separate setting.
        block = {"cidr": "0.0.0.0/0", "except": list(PRIVATE)}
        egress.append(_to([{"ipBlock": block}], [443]))
    files.add(
        f"network-policy-{workload.name}.yaml",
        f"Lets callers of the contract reach {workload.name}, and {workload.name} what it calls "
        "and needs. Host names are restricted in ../../../istio/base/sidecar-"
        f"{workload.name}.yaml.",
        _policy(workload.name, workload.namespace, ingress, egress),
    )


def _policy(name: str, namespace: str, ingress: list[Resource], egress: list[Resource]) -> Resource:
    return resource(
        NETWORK_POLICY,
        name,
        namespace,
        spec={
            "podSelector": {"matchLabels": {"app": name}},
            "policyTypes": ["Ingress", "Egress"],
            # The server drops empty lists, so that each apply would show a change.
            **({"ingress": ingress} if ingress else {}),
            **({"egress": egress} if egress else {}),
        },
    )


def _callers(deployed: Deployment, workload: Workload) -> list[tuple[str, str]]:
    if not workload.is_grpc:
        return [(EDGE_NAMESPACE, EDGE)]
    clients = sorted(c for c in CLIENTS if (c, workload.name) in deployed.mesh.edges())
    callers = [(w.namespace, w.name) for w in deployed.callers(workload.name)]
    return callers + [(APP_NAMESPACE, client) for client in clients]


def _edge(files: Files, deployed: Deployment) -> None:
    behind = [w for w in deployed.workloads if not w.is_grpc]
    files.add(
        f"network-policy-{EDGE}.yaml",
        "Permits external clients to reach the edge, and the edge to reach the gateway.",
        _policy(
            EDGE,
            EDGE_NAMESPACE,
            [_from([WORLD], [8080, 8443])],
            [_to(_pods([w]), [w.port]) for w in behind],
        ),
    )


def _migration(files: Files, deployed: Deployment) -> None:
    ports = [e.port for e in deployed.reached_by("auth") if e.name == "postgres"]
    files.add(
        f"network-policy-{MIGRATION}.yaml",
        "Permits migrations to reach Auth's database.",
        _policy(MIGRATION, deployed.workload("auth").namespace, [], [_to([WORLD], ports)]),
    )


def _pods(workloads: Iterable[Workload | tuple[str, str]]) -> list[Resource]:
    places = [w if isinstance(w, tuple) else (w.namespace, w.name) for w in workloads]
    return [
        {**_namespace(namespace), "podSelector": {"matchLabels": {"app": name}}}
        for namespace, name in places
    ]


def _namespace(name: str) -> Resource:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _from(peers: list[Resource], ports: list[int]) -> Resource:
    return {"from": peers, "ports": _tcp(ports)}


def _to(peers: list[Resource], ports: list[int]) -> Resource:
    return {"to": peers, "ports": _tcp(ports)}


def _tcp(ports: list[int]) -> list[Resource]:
    return [{"protocol": "TCP", "port": port} for port in ports]
