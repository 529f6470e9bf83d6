"""The components of a running console that the API uses."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from mesh.console.clock import Now, steady
from mesh.console.incidents.alert_servers import Watch
from mesh.console.incidents.evaluator import Evaluator
from mesh.console.intake.clock_offset import ClockOffsets
from mesh.console.intake.scraper import Seen
from mesh.console.store.intake_counters import IntakeCounters
from mesh.console.store.reader import Reader
from mesh.console.store.writer import Writer
from mesh.contract.policy import Mesh


@dataclass(frozen=True)
class Context:
    """The components of a running console."""

    mesh: Mesh
    writer: Writer
    reader: Reader
    intake: IntakeCounters
    now: Now
    seen: list[Seen]
    """The latest scrape of each target, kept up to date by the scraper."""
    certs: Path | None = None
    watch: Watch = field(default_factory=Watch)
    """Alerts from Prometheus and Alertmanager."""
    control: Path | None = None
    """Client of the runner's control socket; None when the mesh has no runner."""
    clocks: ClockOffsets = field(default_factory=lambda: ClockOffsets(steady()))
    """Clock offsets of telemetry senders."""
    evaluator: Evaluator = field(default_factory=Evaluator)
    """Evaluates alerts and groups them into incidents."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when streams must close."""
