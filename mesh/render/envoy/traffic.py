"""What people change while the mesh runs: weights of canaries, faults of methods."""

from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True)
class InjectedFault:
    """A fault that people asked for: a method is delayed or aborted for a share of its calls."""

    method: str
    """``survey.ListRequests``."""
    percent: float = 100.0
    delay: timedelta | None = None
    abort: int | None = None
    """The gRPC status number to answer with."""


@dataclass(frozen=True)
class Traffic:
    """The state of all that is steered by hand; nothing by default."""

    weights: dict[str, int] = field(default_factory=dict)
    """Percent of each service's calls that go to its canary; absent means no canary runs."""
    faults: tuple[InjectedFault, ...] = ()

    def fault_of(self, method: str) -> InjectedFault | None:
        """Return the fault of the method, if it has one."""
        return next((fault for fault in self.faults if fault.method == method), None)
