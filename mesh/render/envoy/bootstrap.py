"""All files of one Envoy: the bootstrap, and the files that it watches."""

from typing import Any

from mesh.contract.policy import Mesh, Service
from mesh.render.envoy import clusters, edge, listeners, overload, routes, telemetry, tls
from mesh.render.envoy.proxy import Endpoints, Proxy, Traffic, address
from mesh.render.yaml_text import document
from mesh.topology import clients_of

Files = dict[str, str]
BOOTSTRAP = "envoy.yaml"
_WATCHDOG = {"miss_timeout": "2s", "megamiss_timeout": "5s"}


def arguments(folder: str, drain_seconds: int) -> tuple[str, ...]:
    """Return the command-line arguments of an Envoy whose files are in *folder*."""
    return (
        *("--config-path", f"{folder}/{BOOTSTRAP}"),
        *("--concurrency", "1"),
        # Several Envoys run on one machine and must not share memory.
        "--disable-hot-restart",
        *("--log-level", "warning"),
        # Until Auth is serving, each attempt to fetch its keys would log a warning.
        *("--component-log-level", "jwt:error"),
        # During an incident the default flush interval of 10 s would delay access logs.
        *("--file-flush-interval-msec", "1000"),
        *("--drain-time-s", str(drain_seconds)),
        *("--drain-strategy", "immediate"),
    )


def files(mesh: Mesh, proxy: Proxy, endpoints: Endpoints, traffic: Traffic) -> Files:
    """Return every file of *proxy*, by its path below the proxy's folder."""
    found = {BOOTSTRAP: bootstrap(mesh, proxy)}
    for name, content in tls.secrets(proxy).items():
        found[f"secrets/{name}.yaml"] = document(
            f"Secret {name!r} of {proxy.name}; reloaded when its folder's symbolic link changes.",
            content,
        )
    return found | live_files(mesh, proxy, endpoints, traffic)


def live_files(mesh: Mesh, proxy: Proxy, endpoints: Endpoints, traffic: Traffic) -> Files:
    """Return the files of *proxy* that change at runtime: routes and clusters."""
    callees = callees_of(mesh, proxy)
    found = {
        "routes/egress.yaml": document(
            f"Outbound routes of {proxy.workload}: deadlines, retries, canaries.",
            routes.egress(callees, traffic),
        )
    }
    if proxy.inbound:
        found["routes/inbound.yaml"] = document(
            f"Inbound routes of {proxy.workload}: deadlines and faults.",
            routes.inbound(mesh.service(proxy.workload), traffic),
        )
    if callees:
        found[str(clusters.CALLEES)] = document(
            f"Endpoints and limits of the services that {proxy.workload} calls.",
            clusters.callees(proxy, callees, endpoints),
        )
    return found


def callees_of(mesh: Mesh, proxy: Proxy) -> tuple[Service, ...]:
    """Return the services that the process of *proxy* calls."""
    return tuple(mesh.service(name) for name in clients_of(mesh)[proxy.workload])


def bootstrap(mesh: Mesh, proxy: Proxy) -> str:
    """Return Envoy's bootstrap file."""
    services = callees_of(mesh, proxy)
    found_listeners = [listeners.egress(proxy)]
    found_clusters: list[dict[str, Any]] = []
    if proxy.inbound:
        service = mesh.service(proxy.workload)
        found_listeners.append(listeners.inbound(proxy, service))
        found_clusters.append(clusters.service_app(proxy, service))
    if proxy.edge is not None:
        found_listeners += edge.listeners(proxy, proxy.edge, mesh)
        found_clusters += clusters.gateway_app(proxy, mesh.services)
    if proxy.key_set:
        found_clusters.append(clusters.keys(proxy))
    if proxy.stats:
        found_listeners.append(listeners.stats(proxy))
        found_clusters.append(clusters.admin(proxy))
    found_clusters += clusters.collectors(proxy)
    content: dict[str, Any] = {
        "node": {"id": proxy.name, "cluster": proxy.workload},
        "admin": {"address": address(proxy.admin)},
        **({"dynamic_resources": clusters.from_file(proxy)} if services else {}),
        "static_resources": {"listeners": found_listeners, "clusters": found_clusters},
        "overload_manager": overload.manager(overload.capacity_of(proxy)),
        "memory_allocator_manager": overload.memory_release(),
        **telemetry.batches(proxy),
        # Canary analysis reads histograms, which are merged at each flush.
        "stats_flush_interval": "1s",
        # By default, each thread wakes up ten times a second to say that it lives.
        "watchdogs": dict.fromkeys(("main_thread_watchdog", "worker_watchdog"), _WATCHDOG),
    }
    title = f"Envoy of {proxy.workload}: rendered from the contracts, do not edit."
    return document(title, content)
