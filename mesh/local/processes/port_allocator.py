"""Allocates ports to the instances of processes.

Replicas, canaries and successors run next to the first instance. Each needs a port for metrics, one
for the admin interface of its Envoy, and most need a gRPC port.
"""

import errno
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain

from mesh import topology
from mesh.local.addresses import HOST
from mesh.topology import Process


class PortsExhaustedError(Exception):
    """All spare ports are in use; the message says by what."""


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

    def take(
        self,
        process: Process,
        *,
        own: bool = True,
        in_use: Callable[[InstancePorts], Iterable[int]] = lambda _: (),
    ) -> InstancePorts:
        """Return the process's own ports if they are free and *own* is set, else spare ones.

        Args:
            process: The process of the instance.
            own: Whether the instance may have the process's own ports.
            in_use: Returns which of the ports another program uses.

        Raises:
            PortsExhaustedError: All are in use.
        """
        others: list[int] = []
        first = InstancePorts(process.name, process.port, process.metrics, process.admin)
        for ports in (*([first] if own else []), *self._spare):
            if ports.tag in self._used:
                continue
            if found := list(in_use(ports)):
                others += found
                continue
            self._used.add(ports.tag)
            return ports
        listed = ", ".join(map(str, others))
        raise PortsExhaustedError(
            f"No more than {len(self._spare)} replicas and canaries can run next to the first "
            "instances. Stop some, or start with fewer --replicas."
            + (f" Other programs use the ports {listed}; stop them." if others else "")
        )

    def release(self, ports: InstancePorts) -> None:
        """Make *ports* available again."""
        self._used.discard(ports.tag)


def _spare_ports() -> list[InstancePorts]:
    """Return the ports of replicas and canaries that no process of the topology declares."""
    declared = topology.declared_ports()
    free = (
        [port for port in chain(*ports) if port not in declared]
        for ports in (topology.REPLICAS, topology.REPLICA_METRICS, topology.REPLICA_ADMIN)
    )
    return [InstancePorts(str(i), *ports) for i, ports in enumerate(zip(*free, strict=False))]


def is_free(port: int) -> bool:
    """Return whether *port* is free on 127.0.0.1 and unused on ::1.

    Browsers try ::1 first for ``localhost``, so they would show another program's pages.
    """
    return _can_bind(socket.AF_INET, HOST, port) and _can_bind(socket.AF_INET6, "::1", port)


def _can_bind(family: socket.AddressFamily, host: str, port: int) -> bool:
    try:
        attempt = socket.socket(family)
    except OSError:
        return True  # This machine has no IPv6.
    with attempt:
        # As servers do, so that ports of closed connections do not count as in use.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((host, port))
        except OSError as exc:
            return exc.errno == errno.EADDRNOTAVAIL
    return True
