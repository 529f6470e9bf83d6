"""Settings of the gateway."""

from pathlib import Path

from pydantic import field_validator

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
