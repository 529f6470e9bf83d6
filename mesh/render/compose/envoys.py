"""The files of Compose's proxies, from the renderer of the local mesh with container names."""

from mesh.render.deployment import SOCKETS, Deployment, Workload
from mesh.render.envoy import Collector, Edge, Proxy, Telemetry, Traffic
from mesh.render.envoy import files as proxy_files

FOLDER = "/etc/amarre/envoy"
CERTS = "/run/amarre-certs"
EDGE_TLS = "/etc/amarre/edge"
KEYS = "/run/amarre-keys"
HTTP, HTTPS = 8080, 8443
COLLECTOR = "otel-collector:4317"
STATS = 15090
"""Port from which Prometheus scrapes a proxy's statistics; the same as Istio's."""
SAMPLING_PERCENT = 5.0


def files(deployed: Deployment) -> dict[str, str]:
    """Return the files of every proxy, in ``envoy``."""
    endpoints = {w.name: (f"{container(w)}:{w.port}",) for w in deployed.workloads if w.is_grpc}
    return {
        f"envoy/{container(workload)}/{name}": text
        for workload in deployed.workloads
        for name, text in proxy_files(
            deployed.mesh, proxy(deployed, workload), endpoints, Traffic()
        ).items()
    }


def container(workload: Workload) -> str:
    """Return the name of the proxy's container."""
    return f"{workload.name}-envoy"


def proxy(deployed: Deployment, workload: Workload) -> Proxy:
    """Return the addresses and folders of the Envoy of *workload*."""
    edge = Edge(http=f"0.0.0.0:{HTTP}", https=f"0.0.0.0:{HTTPS}", tls_dir=EDGE_TLS, redirect=True)
    return Proxy(
        name=container(workload),
        workload=workload.name,
        folder=FOLDER,
        svid_dir=CERTS,
        # On a socket: anyone who can reach the admin interface can stop the proxy.
        admin=f"unix:{SOCKETS}/admin.sock",
        stats=f"0.0.0.0:{STATS}",
        app=f"unix:{workload.socket}",
        egress=f"unix:{SOCKETS}/egress.sock",
        inbound=f"0.0.0.0:{workload.port}" if workload.is_grpc else "",
        key_set=f"unix:{KEYS}/keys.sock" if deployed.needs_keys(workload.name) else "",
        edge=None if workload.is_grpc else edge,
        telemetry=Telemetry(
            traces=Collector(COLLECTOR),
            logs=Collector(COLLECTOR),
            sampling_percent=SAMPLING_PERCENT,
            environment="production",
        ),
    )
