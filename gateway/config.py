"""Settings of the gateway."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field, field_validator

from gateway.sessions.origin import Origin
from mesh.chassis.config import MeshSettings


class GatewaySettings(MeshSettings):
    """Settings of the gateway, in addition to those of every process."""

    gateway_http_listen: str = "127.0.0.1:3000"
    """Address of the HTTP listener: ``HOST:PORT``, or ``unix:PATH`` behind Envoy."""
    gateway_https_listen: str = ""
    """Address of the HTTPS listener, such as ``127.0.0.1:3443``; empty disables it."""
    gateway_tls_dir: Path = Path("certs/edge")
    """Folder with ``tls.crt`` and ``tls.key`` of the HTTPS listener."""
    gateway_origins: str = (
        "http://localhost:3000,http://127.0.0.1:3000,https://localhost:3443,https://127.0.0.1:3443"
    )
    """Origins of the gateway's own pages, comma-separated."""

    gateway_streams_per_client: int = Field(default=20, ge=1)
    """Event streams without a session of one client address (an IPv6 /64): a few open pages."""
    gateway_streams_per_session: int = Field(default=6, ge=1)
    """Event streams of one session: browsers open six connections per host."""
    gateway_streams_total: int = Field(default=500, ge=1)
    """Event streams of this process; each holds a connection and a few tasks."""
    gateway_requests_in_flight: int = Field(default=128, ge=16)
    """Largest concurrency limit; the limit in effect follows the measured queueing delay."""
    gateway_queue_target: timedelta = Field(default=timedelta(milliseconds=50), gt=timedelta(0))
    """Queueing delay above which the concurrency limit shrinks."""
    gateway_queue_longest: timedelta = Field(default=timedelta(seconds=1), gt=timedelta(0))
    """Maximum queueing delay: a request that has waited for longer is rejected."""
    gateway_sessions_cached: int = Field(default=10_000, ge=1)
    """Verified sessions kept in memory, about 1 KiB each."""
    gateway_connections_per_client: int = Field(default=200, ge=1)
    """Connections of one client address where no Envoy is in front (direct transport)."""
    gateway_connections_total: int = Field(default=2000, ge=1)
    """Connections of this process; a sixth of the usual limit of open files stays free."""

    @field_validator("gateway_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        _origins(value)
        return value

    @property
    def origins(self) -> frozenset[Origin]:
        """Return the origins of the gateway's own pages."""
        return frozenset(_origins(self.gateway_origins))

    @property
    def https_url(self) -> str:
        """Return the first HTTPS origin of the gateway's own pages; empty if there is none."""
        return next((str(o) for o in _origins(self.gateway_origins) if o.scheme == "https"), "")

    @property
    def behind_envoy(self) -> bool:
        """Return whether headers set by Envoy can be trusted."""
        return self.transport == "sidecar"


def _origins(text: str) -> list[Origin]:
    return [Origin.parse(o.strip().rstrip("/")) for o in text.split(",") if o.strip()]
