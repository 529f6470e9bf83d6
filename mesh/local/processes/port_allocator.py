"""Allocates ports to the instances of processes.

Replicas, canaries and successors run next to the first instance. Each needs a port for metrics, one
for the admin interface of its Envoy, and most need a gRPC port.
"""

from dataclasses import dataclass

from mesh.topology import Process

MOST_SPARE = 10
_MAIN, _METRICS = 70, 54
_ADMIN = (*range(34, 40), *range(80, 84))
"""Envoys use +30 to +39; four more use ports that are otherwise free."""


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
        self._used: set[str] = set()

    def take(self, process: Process, *, own: bool = True) -> InstancePorts:
        """Return the process's own ports if they are free and *own* is set, else spare ones.

        Raises:
            PortsExhaustedError: All are in use.
        """
        candidates = [
            InstancePorts(str(i), _MAIN + i, _METRICS + i, _ADMIN[i]) for i in range(MOST_SPARE)
        ]
        if own:
            first = InstancePorts(process.name, process.port, process.metrics, process.admin)
            candidates.insert(0, first)
        for ports in candidates:
            if ports.tag not in self._used:
                self._used.add(ports.tag)
                return ports
        raise PortsExhaustedError(
            f"No more than {MOST_SPARE} replicas and canaries can run next to the first instances. "
            "Stop some, or start with fewer --replicas."
        )

    def release(self, ports: InstancePorts) -> None:
        """Make *ports* available again."""
        self._used.discard(ports.tag)
