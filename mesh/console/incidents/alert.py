"""One alert, and the data that alert conditions read."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from mesh.console.incidents import alert_table, runbooks
from mesh.console.incidents.observations import Observations
from mesh.console.intake.clock_offset import ClockOffsets
from mesh.console.intake.scraper import Seen
from mesh.console.queries.increases import Increase, increases
from mesh.console.queries.service_graph import Key, observed
from mesh.console.queries.service_graph import Seen as Edge
from mesh.contract.policy import Mesh

DEPENDENCIES = {"outbox": "mail", "smtp": "mail", "appwrite": "identity", "redcap": "redcap"}
"""Display names of systems outside the mesh, by their name in telemetry."""
HOST = "host"
"""The service name of alerts about the machine itself."""
STARTING = timedelta(seconds=30)
"""How long a process may take to start, and its peers to notice that it is up."""
RECENT = timedelta(minutes=2)
LATELY = timedelta(seconds=45)
"""The window for calls to dependencies: long enough for several health checks of an idle mesh."""


@dataclass(frozen=True)
class Alert:
    """One firing alert: its name, the affected workload or dependency, and a summary."""

    name: str
    service: str
    message: str
    subject: str = ""
    """What is affected: a process, an rpc or a cluster."""
    state: str = "firing"
    source: str = "console"
    over: bool = False
    """Whether what it reports has stopped: only its window still contains it."""

    @property
    def severity(self) -> str:
        """``page`` or ``ticket``; for other rules, the severity that their server reports."""
        return alert_table.severity(self.name) if self.name in alert_table.rules() else "ticket"

    @property
    def runbook(self) -> str:
        """Path of the runbook; empty if the alert has none."""
        if self.name not in alert_table.rules():
            return ""
        return f"{runbooks.PATH}/{alert_table.runbook(self.name)}"

    def to_json(self) -> dict[str, Any]:
        """Return the alert as the API shows it."""
        return {
            "severity": self.severity,
            "name": self.name,
            "service": self.service,
            "message": self.message,
            "subject": self.subject,
            "runbook": self.runbook,
        }


@dataclass(frozen=True)
class Situation:
    """What alert conditions read besides the store."""

    mesh: Mesh
    seen: Sequence[Seen]
    observed: Observations
    clocks: ClockOffsets
    certificates: Path | None
    database: Path
    write_fault: str
    now: int
    """Microseconds since the epoch."""

    def since(self, span: timedelta) -> int:
        """Return the time *span* before now, in microseconds."""
        return self.now - int(span.total_seconds() * 1e6)

    def starting(self) -> frozenset[str]:
        """
        Return the processes that are starting: reports about them are out of date.

        The runner lists a process before it accepts calls, and a proxy whose health check failed in
        the meantime keeps that result until its next check.
        """
        since = self.since(STARTING)
        return frozenset(
            one.target.process
            for one in self.seen
            if (one.up_since or one.named_at) > since and not (one.up_since and one.fault)
        )


@dataclass(frozen=True)
class Counted:
    """What alert conditions read from the store."""

    recent: Sequence[Increase]
    """Within `RECENT`."""
    lately: Sequence[Increase]
    """Within `LATELY`."""
    edges: Mapping[Key, Edge]
    """Calls between workloads in this minute and the previous one."""


def read(db: sqlite3.Connection, s: Situation) -> Counted:
    """Read the store."""
    minute = s.now // 60_000_000
    return Counted(
        recent=increases(db, since=s.since(RECENT), until=s.now),
        lately=increases(db, since=s.since(LATELY), until=s.now),
        edges=observed(db, since=minute - 2, until=minute),
    )
