"""The history of requests and responses, and a checker of its correctness."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Operation:
    """One HTTP request of one client; times in seconds of a monotonic clock."""

    person: str
    kind: str
    """``create`` or ``list``."""
    began: float
    ended: float
    status: int
    """The HTTP status; 0 where the connection broke."""
    ids: tuple[str, ...] = ()
    """The request that was created, or those that were listed."""

    @property
    def succeeded(self) -> bool:
        """Whether it was acknowledged."""
        return 200 <= self.status < 300


@dataclass
class Fault:
    """A fault in the mesh."""

    name: str
    began: float
    ended: float = 0.0
    recovered: float = 0.0
    """When the first of several operations in a row succeeded after its end."""


@dataclass
class History:
    """Everything that happened, ordered by end time."""

    operations: list[Operation] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def summary(history: History) -> str:
    """Return the figures of a run: operations, failures, and recovery after each fault."""
    done = history.operations
    longest = max((one.ended - one.began for one in done), default=0.0)
    failed = sum(not one.succeeded for one in done)
    lines = [f"{len(done)} operations, {failed} failed, the longest took {longest:.1f} s"]
    for fault in history.faults:
        took = max(0.0, fault.recovered - fault.ended)
        lines.append(f"{fault.name} ({fault.ended - fault.began:.1f} s): {took:.1f} s")
    return "\n  ".join(lines)


def violations(
    history: History,
    stored: Collection[str],
    *,
    deadline_seconds: float,
    recovery_seconds: float,
) -> list[str]:
    """Return a sentence for each violated rule; *stored* are the requests in REDCap."""
    return [
        *_lost(history.operations, stored),
        *_twice(history.operations, stored),
        *_late(history.operations, deadline_seconds),
        *_slow(history.faults, recovery_seconds),
    ]


def _lost(operations: Sequence[Operation], stored: Collection[str]) -> list[str]:
    """An acknowledged creation is in REDCap and in each later list of its client."""
    found = []
    for created in operations:
        if created.kind != "create" or not created.succeeded:
            continue
        (request,) = created.ids
        if request not in stored:
            found.append(f"{created.person} was told of {request}, which REDCap does not hold.")
        found += [
            f"{listed.person} did not see {request} {listed.began - created.ended:.1f} s later."
            for listed in operations
            if listed.person == created.person
            and listed.kind == "list"
            and listed.succeeded
            and listed.began > created.ended
            and request not in listed.ids
        ]
    return found


def _twice(operations: Sequence[Operation], stored: Collection[str]) -> list[str]:
    """
    Each client creates once, with one key: all responses name the same request, and no more exist.
    """
    told: dict[str, set[str]] = {}
    for created in operations:
        if created.kind == "create" and created.succeeded:
            told.setdefault(created.person, set()).update(created.ids)
    several = [
        f"{person} was told of {len(ids)} requests: {', '.join(sorted(ids))}."
        for person, ids in told.items()
        if len(ids) > 1
    ]
    untold = sorted(set(stored) - {request for ids in told.values() for request in ids})
    return [*several, *(f"REDCap holds {request}, of which nobody was told." for request in untold)]


def _late(operations: Sequence[Operation], deadline_seconds: float) -> list[str]:
    return [
        f"{one.kind} of {one.person} took {one.ended - one.began:.1f} s ({one.status})."
        for one in operations
        if one.ended - one.began > deadline_seconds
    ]


def _slow(faults: Sequence[Fault], recovery_seconds: float) -> list[str]:
    found = []
    for fault in faults:
        if not fault.recovered:
            found.append(f"Calls did not succeed again after {fault.name}.")
        elif fault.recovered - fault.ended > recovery_seconds:
            took = fault.recovered - fault.ended
            found.append(f"Calls succeeded again only {took:.1f} s after {fault.name}.")
    return found
