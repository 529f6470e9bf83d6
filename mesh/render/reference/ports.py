"""The reference page of ports, from the topology."""

from collections.abc import Iterator

from mesh import topology
from mesh.topology import Kind

HEAD = """\
# Ports of the local mesh

Rendered from `mesh/topology.py` by `amarre render ports`.
Every port is the port base (`--port-base`, default {base}) plus an offset, on 127.0.0.1.

| offset | process | protocol |
| ---: | --- | --- |
"""


def render() -> dict[str, str]:
    """Return the page."""
    rows = sorted(_rows())
    lines = (f"| {first} | {name} | {what} |\n" for _, first, name, what in rows)
    return {"ports.md": HEAD.format(base=topology.PORT_BASE) + "".join(lines)}


def _rows() -> Iterator[tuple[int, str, str, str]]:
    """Yield the first offset, the displayed range, the process and the protocol."""

    def row(name: str, what: str, first: int, count: int = 1) -> tuple[int, str, str, str]:
        shown = str(first) if count == 1 else f"{first} to {first + count - 1}"
        return first, shown, name, what

    for process in topology.PROCESSES:
        grpc = process.kind is Kind.SERVICE and process.port != topology.EDGE_HTTP
        yield row(process.name, "gRPC, mutual TLS" if grpc else "HTTP", process.port)
        if process.metrics:
            yield row(process.name, "HTTP, `/metrics`", process.metrics)
        if process.admin:
            yield row(f"{process.name}-envoy", "Envoy admin interface", process.admin)
    yield row("gateway", "HTTPS, local CA", topology.EDGE_HTTPS)
    yield row("outbox", "SMTP", topology.SMTP)
    yield row("console", "OTLP over gRPC", topology.OTLP_GRPC)
    yield row("console", "OTLP over HTTP", topology.OTLP_HTTP)
    yield row("prometheus", "HTTP, if installed", topology.PROMETHEUS)
    yield row("alertmanager", "HTTP, if installed", topology.ALERTMANAGER)
    ranges = {
        "gRPC, mutual TLS": topology.REPLICAS,
        "HTTP, `/metrics`": topology.REPLICA_METRICS,
        "Envoy admin interface": topology.REPLICA_ADMIN,
    }
    for what, parts in ranges.items():
        for ports in parts:
            yield row("replicas and canaries", what, ports.start, len(ports))
