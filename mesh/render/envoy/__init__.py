"""
Envoy configuration, rendered from the contracts.

`files` returns the files of one proxy; `render` the committed files of the standard placement.
"""

from mesh.contract import policy
from mesh.render.envoy.bootstrap import BOOTSTRAP, Files, arguments, files, live_files
from mesh.render.envoy.proxy import (
    Collector,
    Edge,
    Endpoints,
    InjectedFault,
    Proxy,
    Telemetry,
    Traffic,
)
from mesh.topology import OTLP_GRPC, PORT_BASE, PROCESSES, Probe

__all__ = [
    "BOOTSTRAP",
    "Collector",
    "Edge",
    "Endpoints",
    "Files",
    "InjectedFault",
    "Proxy",
    "Telemetry",
    "Traffic",
    "arguments",
    "files",
    "live_files",
    "render",
]

_CONFIGURATION = "/etc/amarre/envoy"
_CERTIFICATES = "/run/amarre/certs"
_SOCKETS = "/run/amarre/sockets"
_HOST = "127.0.0.1"


def render() -> Files:
    """Return the files of all proxies on one host with the standard ports."""
    mesh = policy.load()
    endpoints = {
        p.name: (f"{_HOST}:{PORT_BASE + p.port}",) for p in PROCESSES if p.probe is Probe.GRPC
    }
    return {
        f"{proxy.name}/{name}": text
        for proxy in standard_placement()
        for name, text in files(mesh, proxy, endpoints, Traffic()).items()
    }


def standard_placement() -> list[Proxy]:
    """Return one proxy for each process with an identity."""
    found = []
    console = Collector(f"{_HOST}:{PORT_BASE + OTLP_GRPC}")
    for process in PROCESSES:
        if not process.has_sidecar:
            continue
        at_edge = process.name == "gateway"
        edge = Edge(
            http=f"{_HOST}:{PORT_BASE}",
            https=f"{_HOST}:{PORT_BASE + 443}",
            tls_dir=f"{_CERTIFICATES}/edge",
        )
        found.append(
            Proxy(
                name=f"{process.name}-envoy",
                workload=process.name,
                folder=f"{_CONFIGURATION}/{process.name}-envoy",
                svid_dir=f"{_CERTIFICATES}/{process.identity}",
                admin=f"{_HOST}:{PORT_BASE + process.admin}",
                app=f"unix:{_SOCKETS}/{process.name}/app.sock",
                egress=f"unix:{_SOCKETS}/{process.name}/egress.sock",
                inbound="" if at_edge else f"{_HOST}:{PORT_BASE + process.port}",
                key_set="" if at_edge else f"unix:{_SOCKETS}/keys.sock",
                edge=edge if at_edge else None,
                telemetry=Telemetry(traces=console, logs=console),
            )
        )
    return found
