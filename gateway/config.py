"""Settings of the gateway."""

from pathlib import Path

from mesh.chassis.config import MeshSettings


class GatewaySettings(MeshSettings):
    """What the gateway needs beyond the settings of every process."""

    gateway_http_listen: str = "127.0.0.1:3000"
    """Where HTTP is served: ``127.0.0.1:3000``, or ``unix:/run/gateway.sock`` behind Envoy."""
    gateway_https_listen: str = ""
    """Where HTTPS is served, ``127.0.0.1:3443``; empty means nowhere."""
    gateway_tls_dir: Path = Path("certs/edge")
    """Folder with ``tls.crt`` and ``tls.key`` of the HTTPS listener."""
    gateway_origins: str = (
        "http://localhost:3000,http://127.0.0.1:3000,https://localhost:3443,https://127.0.0.1:3443"
    )
    """The origins of our own pages, separated by commas."""

    @property
    def origins(self) -> frozenset[str]:
        """The origins of our own pages."""
        return frozenset(
            o.strip().rstrip("/") for o in self.gateway_origins.split(",") if o.strip()
        )

    @property
    def behind_envoy(self) -> bool:
        """Whether headers that Envoy writes can be trusted."""
        return self.transport == "sidecar"
