"""Settings of the console."""

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MEBIBYTE = 1024 * 1024


class Target(BaseModel):
    """A scrape target; a URL that does not end in ``/metrics`` is an Envoy admin interface."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    process: str = Field(min_length=1, max_length=64)
    url: str = Field(pattern=r"^https?://")

    @property
    def is_envoy(self) -> bool:
        """Whether the URL is that of an Envoy admin interface."""
        return not self.url.endswith("/metrics")


class ConsoleSettings(BaseSettings):
    """Settings of the console; variables begin with ``AMARRE_``."""

    model_config = SettingsConfigDict(env_prefix="AMARRE_", frozen=True, extra="ignore")

    console_listen: str = "127.0.0.1:3020"
    """Address of pages and API."""
    console_otlp_grpc: str = "127.0.0.1:3021"
    """Address that accepts OTLP over gRPC."""
    console_otlp_http: str = "127.0.0.1:3022"
    """Address that accepts OTLP over HTTP, protobuf or JSON."""
    console_otlp_token_file: Path | None = None
    """File with the bearer token that OTLP senders must present; made when absent. Unset: every
    sender is accepted, which is meant for the loopback interface only."""
    console_database: Path = Path("console.sqlite")
    """The SQLite file that holds the telemetry; created when absent."""
    console_token_file: Path = Path("console-token")
    """File with the bearer token of the API; created, readable only by this user, when absent."""
    console_scrape: tuple[Target, ...] = ()
    """What to scrape, as JSON: ``[{"process": "auth", "url": "http://127.0.0.1:3052/metrics"}]``."""
    console_scrape_file: Path | None = None
    """A file with such JSON instead of the variable; it is read again when it changes."""
    console_prometheus: str = ""
    """URL of the Prometheus whose alerts are shown; empty for none."""
    console_alertmanager: str = ""
    """URL of the Alertmanager whose alerts are shown; empty for none."""
    console_scrape_every: timedelta = Field(default=timedelta(seconds=5), gt=timedelta(0))
    """The scrape interval."""
    console_certs: Path | None = None
    """Folder of SVID folders whose certificates are shown; unset shows none from files."""
    console_control: Path | None = None
    """Unix socket of the local runner's control interface; unset makes the console read-only."""
    console_retention: timedelta = Field(default=timedelta(days=7), ge=timedelta(minutes=1))
    """How long telemetry is kept."""
    console_service_bytes: int = Field(default=512 * MEBIBYTE, ge=MEBIBYTE)
    """The quota of one service, spans and logs together; beyond it its oldest rows are evicted."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The lowest level that is logged."""
