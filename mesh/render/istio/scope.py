"""The scope of each workload's proxy: its Unix socket, and the hosts that it may reach."""

from mesh.render.deployment import (
    CLUSTER_DOMAIN,
    KEY_SET_PORT,
    MONITORING,
    SOCKETS,
    Deployment,
    External,
    Workload,
)
from mesh.render.manifest import Files, Resource, resource

SIDECAR = "networking.istio.io/v1 Sidecar"
SERVICE_ENTRY = "networking.istio.io/v1 ServiceEntry"
DESTINATION_RULE = "networking.istio.io/v1 DestinationRule"
COLLECTOR = f"{MONITORING}/otel-collector.{MONITORING}.{CLUSTER_DOMAIN}"
KEY_SET_SOCKET = f"{SOCKETS}/keys.sock"


def add(files: Files, deployed: Deployment) -> None:
    """Add the scopes of *deployed* to *files*."""
    for workload in deployed.workloads:
        _sidecar(files, deployed, workload)
        for external in deployed.reached_by(workload.name):
            _service_entry(files, workload, external)


def _sidecar(files: Files, deployed: Deployment, workload: Workload) -> None:
    called = list(deployed.callees(workload.name))
    hosts = [f"{other.namespace}/{other.host}" for other in called]
    auth = deployed.workload("auth")
    if deployed.needs_keys(workload.name) and auth not in called:
        hosts.append(f"{auth.namespace}/{auth.host}")
    hosts += [f"./{external.host}" for external in deployed.reached_by(workload.name)]
    hosts.append(COLLECTOR)
    files.add(
        f"sidecar-{workload.name}.yaml",
        f"Forwards calls to {workload.name} over its Unix socket, which only its proxy can reach,\n"
        "and limits its scope to the services it calls. Mirrors policy.callers of those.",
        resource(
            SIDECAR,
            workload.name,
            workload.namespace,
            spec={
                "workloadSelector": {"labels": {"app": workload.name}},
                "ingress": _ingress(workload),
                "egress": [{"hosts": sorted(hosts)}],
                "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
            },
        ),
    )


def _ingress(workload: Workload) -> list[Resource]:
    protocol = "GRPC" if workload.is_grpc else "HTTP"
    listeners: list[Resource] = [
        {
            "port": {"number": workload.port, "protocol": protocol, "name": protocol.lower()},
            "defaultEndpoint": f"unix://{workload.socket}",
        }
    ]
    if workload.name == "auth":
        listeners.append(
            {
                "port": {"number": KEY_SET_PORT, "protocol": "HTTP", "name": "http-keys"},
                "defaultEndpoint": f"unix://{KEY_SET_SOCKET}",
            }
        )
    return listeners


def _service_entry(files: Files, workload: Workload, external: External) -> None:
    port = {
        "number": external.port,
        "name": f"{external.protocol.lower()}-{external.name}",
        "protocol": external.protocol,
    }
    why = (
        f"Lets {workload.name} reach {external.name}: {external.purpose}. Visible in its namespace."
    )
    metadata: Resource = {}
    if external.protocol == "TCP":
        why += (
            f"\nThe protocol has no host name, so the proxy matches {external.name} by its port. "
            f"Every\nconnection to port {external.port} goes there by design, so IST0134 is "
            "suppressed."
        )
        metadata["annotations"] = {"galley.istio.io/analyze-suppress": "IST0134"}
    files.add(
        f"service-entry-{external.name}-{workload.name}.yaml",
        why,
        resource(
            SERVICE_ENTRY,
            external.name,
            workload.namespace,
            metadata=metadata,
            spec={
                "hosts": [external.host],
                "exportTo": ["."],
                "location": "MESH_EXTERNAL",
                "resolution": "DNS",
                "ports": [port],
            },
        ),
    )
    files.add(
        f"destination-rule-{external.name}-{workload.name}.yaml",
        f"Limits connect time from {workload.name} to {external.name}, which uses its own TLS.",
        resource(
            DESTINATION_RULE,
            external.name,
            workload.namespace,
            spec={
                "host": external.host,
                "exportTo": ["."],
                "trafficPolicy": {
                    "tls": {"mode": "DISABLE"},
                    "connectionPool": {"tcp": {"connectTimeout": "3s"}},
                },
            },
        ),
    )
