"""Settings of the gateway."""

from pathlib import Path

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

    @property
    def origins(self) -> frozenset[str]:
        """Return the origins of the gateway's own pages."""
        return frozenset(
            o.strip().rstrip("/") for o in self.gateway_origins.split(",") if o.strip()
        )

    @property
    def behind_envoy(self) -> bool:
        """Return whether headers set by Envoy can be trusted."""
        return self.transport == "sidecar"
