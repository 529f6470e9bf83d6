"""What the API works with: the parts of a running console."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from mesh.console.alerting import Watch
from mesh.console.clock import Now
from mesh.console.intake import Intake
from mesh.console.reader import Reader
from mesh.console.scrape import Seen
from mesh.console.writer import Writer
from mesh.contract.policy import Mesh


@dataclass(frozen=True)
class Context:
    """The parts of a running console."""

    mesh: Mesh
    writer: Writer
    reader: Reader
    intake: Intake
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
