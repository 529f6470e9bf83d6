"""Ports of the instances of processes: their own, or spare ones.

Replicas, canaries and successors run next to the first instance. Each needs an address for
metrics, one for the admin interface of its Envoy, and most need a gRPC port of their own.
"""

from dataclasses import dataclass

from mesh.topology import Process

MOST_SPARE = 10
_PORTS, _METRICS = 70, 54
_ADMIN = (*range(34, 40), *range(80, 84))
"""Envoys have +30 to +39; four more use ports that nothing else has."""


class NoSlotError(Exception):
    """All ports for further instances are in use."""


@dataclass(frozen=True)
class Slot:
    """The offsets of one instance's ports from the port base."""

    tag: str
    port: int
    metrics: int
    admin: int


class Slots:
    """Assigns slots to instances and takes them back."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def take(self, process: Process, *, own: bool = True) -> Slot:
        """Return the process's own slot if it is free and *own* is set, else a spare one.

        Raises:
            NoSlotError: All are in use.
        """
        candidates = [Slot(str(i), _PORTS + i, _METRICS + i, _ADMIN[i]) for i in range(MOST_SPARE)]
        if own:
            first = Slot(process.name, process.port, process.metrics, process.admin)
            candidates.insert(0, first)
        for slot in candidates:
            if slot.tag not in self._used:
                self._used.add(slot.tag)
                return slot
        raise NoSlotError(
            f"No more than {MOST_SPARE} replicas and canaries can run next to the first instances. "
            "Stop some, or start with fewer --replicas."
        )

    def give_back(self, slot: Slot) -> None:
        """Make *slot* available again."""
        self._used.discard(slot.tag)
