"""Settings of the console."""

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mesh.chassis.config import EnvironmentSettings, OptionalWebUrl, WebUrl

MEBIBYTE = 1024 * 1024


class Target(BaseModel):
    """A scrape target; a URL that does not end with ``/metrics`` is an Envoy admin interface."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    process: str = Field(min_length=1, max_length=64)
    url: WebUrl

    @property
    def is_envoy(self) -> bool:
        """Whether the target is an Envoy admin interface."""
        return not self.url.endswith("/metrics")


class ConsoleSettings(EnvironmentSettings):
    """Settings of the console; variables start with ``AMARRE_``."""

    console_listen: str = "127.0.0.1:3020"
    """Listen address of the pages and the API."""
    console_otlp_grpc: str = "127.0.0.1:3021"
    """Listen address for OTLP over gRPC."""
    console_otlp_http: str = "127.0.0.1:3022"
    """Listen address for OTLP over HTTP, protobuf or JSON."""
    console_otlp_token_file: Path | None = None
    """File with the bearer token that OTLP senders must present; created if missing. If unset, all
    senders are accepted: use this only on the loopback interface."""
    console_database: Path = Path("console.sqlite")
    """The SQLite database file; created if missing."""
    console_token_file: Path = Path("console-token")
    """File with the bearer token of the API; created with mode 0600 if missing."""
    console_scrape: tuple[Target, ...] = ()
    """Scrape targets as JSON: ``[{"process": "auth", "url": "http://127.0.0.1:3052/metrics"}]``."""
    console_scrape_file: Path | None = None
    """File with scrape targets in the same format; reread when it changes."""
    console_prometheus: OptionalWebUrl = ""
    """URL of a Prometheus server whose alerts are shown; empty for none."""
    console_alertmanager: OptionalWebUrl = ""
    """URL of an Alertmanager whose alerts are shown; empty for none."""
    console_scrape_every: timedelta = Field(default=timedelta(seconds=5), gt=timedelta(0))
    """The scrape interval."""
    console_certs: Path | None = None
    """Folder with one SVID folder per workload, whose certificates are shown; unset for none."""
    console_control: Path | None = None
    """Unix socket of the local runner's control interface; if unset, the console is read-only."""
    console_retention: timedelta = Field(default=timedelta(days=7), ge=timedelta(minutes=1))
    """The retention period of spans, logs and counts of calls."""
    console_points_retention: timedelta = Field(default=timedelta(hours=6), ge=timedelta(minutes=1))
    """The retention period of all other metrics, which are many."""
    console_service_bytes: int = Field(default=512 * MEBIBYTE, ge=MEBIBYTE)
    """The quota of one service for spans and logs; above it, its oldest rows are evicted."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The minimum log level."""
