"""The settings of the console."""

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MEBIBYTE = 1024 * 1024


class Target(BaseModel):
    """Something that is scraped; an address that does not end in ``/metrics`` is Envoy's admin."""

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
    """Address where OTLP over gRPC comes in."""
    console_otlp_http: str = "127.0.0.1:3022"
    """Address where OTLP over HTTP comes in, protobuf or JSON."""
    console_database: Path = Path("console.sqlite")
    """The file that keeps the telemetry; made when absent."""
    console_token_file: Path = Path("console-token")
    """File with the bearer token of the API; made, for this user alone, when absent."""
    console_scrape: tuple[Target, ...] = ()
    """What to scrape, as JSON: ``[{"process": "auth", "url": "http://127.0.0.1:3052/metrics"}]``."""
    console_scrape_file: Path | None = None
    """A file with such JSON in place of the variable; it is followed as it changes."""
    console_prometheus: str = ""
    """URL of the Prometheus whose alerts are shown; empty means none."""
    console_alertmanager: str = ""
    """URL of the Alertmanager whose alerts are shown; empty means none."""
    console_scrape_every: timedelta = Field(default=timedelta(seconds=5), gt=timedelta(0))
    """How often that is scraped."""
    console_certs: Path | None = None
    """Folder of SVID folders whose end is shown; none means certificates are not shown."""
    console_control: Path | None = None
    """Unix socket where the runner of a local mesh takes orders; none means it is only watched."""
    console_retention: timedelta = Field(default=timedelta(days=7), ge=timedelta(minutes=1))
    """How long telemetry is kept."""
    console_service_bytes: int = Field(default=512 * MEBIBYTE, ge=MEBIBYTE)
    """How much one service may fill, spans and logs together, before its oldest go."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least level that is logged."""
