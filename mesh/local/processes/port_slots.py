"""
Which ports an instance of a process gets: its own, or those that are spare.

Replicas, canaries and processes that take over from an old one run beside the first; each needs
an address for metrics, one for its proxy's admin interface, and most a gRPC port of their own.
"""

from dataclasses import dataclass

from mesh.topology import Process

MOST_SPARE = 10
_PORTS, _METRICS = 70, 54
_ADMIN = (*range(34, 40), *range(80, 84))
"""The design gives proxies +30 to +39; four more stand where nothing else does."""


class NoSlotError(Exception):
    """As many instances run as this machine has ports for."""


@dataclass(frozen=True)
class Slot:
    """The offsets of one instance's ports from the port base."""

    tag: str
    port: int
    metrics: int
    admin: int


class Slots:
    """Hands out slots, and takes them back."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def take(self, process: Process, *, own: bool = True) -> Slot:
        """
        Return the process's own slot when it is free and *own* is asked for, else a spare one.

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
            f"No more than {MOST_SPARE} replicas and canaries can run beside the first ones. "
            "Stop some, or start with fewer --replicas."
        )

    def give_back(self, slot: Slot) -> None:
        """Let the next instance have *slot*."""
        self._used.discard(slot.tag)
