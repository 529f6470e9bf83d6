"""One alert of the console, and what the conditions of alerts look at."""

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
"""What systems outside of the mesh are called, by their name in telemetry."""
HOST = "host"
"""What alerts on the machine itself are about."""
STARTING = timedelta(seconds=30)
"""How long a process may take to answer, and others to notice that it does."""
RECENT = timedelta(minutes=2)
LATELY = timedelta(seconds=45)
"""How far back calls to dependencies count: long enough for several checks of an idle mesh."""


@dataclass(frozen=True)
class Alert:
    """One firing alert: its name, the workload or dependency it is about, and a sentence."""

    name: str
    service: str
    message: str
    subject: str = ""
    """What exactly: a process, an rpc, a cluster."""
    state: str = "firing"
    source: str = "console"

    @property
    def severity(self) -> str:
        """``page`` or ``ticket``; for alerts of other rules as their server says."""
        return alert_table.severity(self.name) if self.name in alert_table.rules() else "ticket"

    @property
    def runbook(self) -> str:
        """The path of the runbook; empty when there is none."""
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
    """What the conditions look at besides the store."""

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
        """Return when *span* before now was, in microseconds."""
        return self.now - int(span.total_seconds() * 1e6)

    def starting(self) -> frozenset[str]:
        """
        Return the processes that start: what others say of them is about the time before.

        A runner names a process before that answers, and a proxy that was asked for its health in
        the meantime keeps what it saw until its next check.
        """
        since = self.since(STARTING)
        return frozenset(
            one.target.process
            for one in self.seen
            if (one.up_since or one.named_at) > since and not (one.up_since and one.fault)
        )


@dataclass(frozen=True)
class Counted:
    """What the conditions read of the store."""

    recent: Sequence[Increase]
    """Within `RECENT`."""
    lately: Sequence[Increase]
    """Within `LATELY`."""
    edges: Mapping[Key, Edge]
    """Who called whom in this minute and the one before."""


def read(db: sqlite3.Connection, s: Situation) -> Counted:
    """Read the store."""
    minute = s.now // 60_000_000
    return Counted(
        recent=increases(db, since=s.since(RECENT), until=s.now),
        lately=increases(db, since=s.since(LATELY), until=s.now),
        edges=observed(db, since=minute - 2, until=minute),
    )
