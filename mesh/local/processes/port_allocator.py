"""Allocates ports to the instances of processes.

Replicas, canaries and successors run next to the first instance. Each needs a port for metrics, one
for the admin interface of its Envoy, and most need a gRPC port.
"""

from dataclasses import dataclass

from mesh import topology
from mesh.topology import Process


class PortsExhaustedError(Exception):
    """All spare ports are in use."""


@dataclass(frozen=True)
class InstancePorts:
    """The offsets of one instance's ports from the port base."""

    tag: str
    main: int
    metrics: int
    admin: int


class PortAllocator:
    """Allocates and releases the ports of instances."""

    def __init__(self) -> None:
        self._spare = _spare_ports()
        self._used: set[str] = set()

    def take(self, process: Process, *, own: bool = True) -> InstancePorts:
        """Return the process's own ports if they are free and *own* is set, else spare ones.

        Raises:
            PortsExhaustedError: All are in use.
        """
        first = InstancePorts(process.name, process.port, process.metrics, process.admin)
        for ports in (*([first] if own else []), *self._spare):
            if ports.tag not in self._used:
                self._used.add(ports.tag)
                return ports
        raise PortsExhaustedError(
            f"No more than {len(self._spare)} replicas and canaries can run next to the first "
            "instances. Stop some, or start with fewer --replicas."
        )

    def release(self, ports: InstancePorts) -> None:
        """Make *ports* available again."""
        self._used.discard(ports.tag)


def _spare_ports() -> list[InstancePorts]:
    """Return the ports of replicas and canaries that no process of the topology declares."""
    declared = topology.declared_ports()
    free = (
        [port for port in ports if port not in declared]
        for ports in (topology.REPLICAS, topology.REPLICA_METRICS, topology.REPLICA_ADMIN)
    )
    return [InstancePorts(str(i), *ports) for i, ports in enumerate(zip(*free, strict=False))]
