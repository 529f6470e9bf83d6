"""What the API works with: the parts of a running console."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from mesh.console.clock import Now
from mesh.console.incidents.alert_servers import Watch
from mesh.console.intake.scraper import Seen
from mesh.console.store.intake_counters import IntakeCounters
from mesh.console.store.reader import Reader
from mesh.console.store.writer import Writer
from mesh.contract.policy import Mesh


@dataclass(frozen=True)
class Context:
    """The parts of a running console."""

    mesh: Mesh
    writer: Writer
    reader: Reader
    intake: IntakeCounters
    now: Now
    seen: list[Seen]
    """What was scraped last, kept up to date by the scraper."""
    certs: Path | None = None
    watch: Watch = field(default_factory=Watch)
    """The alerts of Prometheus and Alertmanager."""
    control: Path | None = None
    """Where orders to the mesh go, if it takes any."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when streams must end."""
