"""Changes in the mesh between two scrapes, and restarts with their reasons."""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mesh.console.intake.scraper import STARTED, Seen
from mesh.console.naming import workload

PLANNED = timedelta(minutes=3)
"""How long after a control action a restart is attributed to it."""
SHOWN_RESTART = timedelta(minutes=2)
"""How long an unplanned restart alerts: a process that keeps dying may never be seen down."""
READING_SECONDS = 5.0
"""The longest that a scrape of a proxy may take before its uptime suggests a restart."""
LATER = timedelta(seconds=30)
"""How far two times of the same event may differ, because of clocks and scrapes."""
MAX_RESTARTS = 20
"""The number of restarts kept per process."""
UNKNOWN = "ended unexpectedly"
_DEPLOYING = ("restart", "canary promote", "deploy")
_PLANNING = (*_DEPLOYING, "certs", "rotate")
_PLANNING_CANARY = (*_PLANNING, "canary")
"""Control actions that replace the processes of a service or of its canary."""


@dataclass(frozen=True)
class Change:
    """A change in the mesh: when (microseconds), what, and who made it."""

    at: int
    what: str
    who: str
    service: str = ""
    failed: bool = False

    def plans(self, restart: "Restart") -> bool:
        """Return whether this control action explains why a process was replaced."""
        canary = restart.process.removesuffix("-envoy").endswith("-canary")
        return (
            restart.at - us(PLANNED) < self.at <= restart.at + us(LATER)
            and self.what.startswith(_PLANNING_CANARY if canary else _PLANNING)
            and self.service in ("", workload(restart.process))
        )

    def equals(self, other: "Change") -> bool:
        """Return whether both are one change, read at different times."""
        return self.what == other.what and abs(self.at - other.at) < us(timedelta(seconds=1))

    def deploys(self, service: str) -> bool:
        """Return whether this control action replaced the processes of *service*."""
        return self.service == service and self.what.startswith(_DEPLOYING) and not self.failed


@dataclass(frozen=True)
class Restart:
    """A restart of a process, at a time in microseconds."""

    process: str
    at: int


class Restarts:
    """Restarts of processes and proxies, from the start times and exits that are reported."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._uptimes: dict[str, tuple[float, float]] = {}
        """For each proxy, its uptime at the last scrape and when that scrape ended; seconds."""
        self._seen: dict[str, deque[Restart]] = {}
        self._exits: list[tuple[str, int, str]] = []

    def note_scrape(self, one: Seen) -> None:
        """Record a scrape; a process with a later start time than before was restarted."""
        process = one.target.process
        started = one.gauges.get(STARTED, 0.0)
        before = self._started.get(process)
        again = bool(started and before and started > before + 3)
        if one.proxy:
            uptime, at = one.proxy.uptime_seconds, one.at / 1e6
            started = at - uptime
            known = self._uptimes.get(process)
            # An Envoy's uptime is more precise than the time of its response: on a busy machine
            # the scrape ends seconds after it.
            again = known is not None and (
                uptime < known[0] or uptime + READING_SECONDS < at - known[1]
            )
            self._uptimes[process] = uptime, at
        if started:
            self._started[process] = started
        if again:
            found = Restart(process, int(started * 1e6))
            self._seen.setdefault(process, deque(maxlen=MAX_RESTARTS)).append(found)

    def note_exits(self, items: Iterable[Mapping[str, Any]], parse: Callable[[str], int]) -> None:
        """Record how processes exited, as the runner reports it."""
        self._exits = [
            (str(item["process"]), parse(item["at"]), _ending(int(item["status"])))
            for item in items
        ]

    def of(self, process: str) -> Sequence[Restart]:
        """Return the last restarts of a process, newest first.

        The runner also knows of a process that died before its first scrape.
        """
        scraped = self._seen.get(process, ())
        unseen = [
            Restart(process, at)
            for name, at, _ in self._exits
            if name == process and all(abs(one.at - at) >= us(LATER) for one in scraped)
        ]
        return sorted((*scraped, *unseen), key=lambda one: one.at, reverse=True)

    def every(self) -> Iterator[Restart]:
        """Yield the last restarts of every process."""
        for process in {*self._seen, *(name for name, _, _ in self._exits)}:
            yield from self.of(process)

    def ending(self, restart: Restart) -> str:
        """Return a phrase for how the process ended before a restart."""
        endings = [
            how
            for process, at, how in self._exits
            if process == restart.process and abs(restart.at - at) < us(LATER)
        ]
        return endings[-1] if endings else UNKNOWN


def _ending(status: int) -> str:
    """Return a phrase for an exit status; negative is the number of a signal."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def us(span: timedelta) -> int:
    """Return *span* in microseconds."""
    return int(span.total_seconds() * 1e6)
