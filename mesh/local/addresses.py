"""Addresses of a local mesh: ports and URLs."""

from dataclasses import dataclass
from pathlib import Path

from mesh import topology
from mesh.local.data_folder import DataFolder

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Addresses:
    """The addresses of one mesh, derived from its data folder and port base."""

    data_folder: DataFolder
    port_base: int = topology.PORT_BASE

    def port(self, offset: int) -> int:
        """Return the port with this *offset*."""
        return self.port_base + offset

    def address(self, offset: int) -> str:
        """Return host and port with this *offset*."""
        return f"{HOST}:{self.port(offset)}"

    @property
    def app(self) -> str:
        """URL of the application, by name: browsers bind passkeys to names only."""
        return f"http://localhost:{self.port(topology.EDGE_HTTP)}"

    @property
    def app_tls(self) -> str:
        """URL of the application with TLS, by name."""
        return f"https://localhost:{self.port(topology.EDGE_HTTPS)}"

    @property
    def key_set(self) -> Path:
        """The socket on which Auth serves its key set to Envoys and services."""
        return self.data_folder.sockets / "keys.sock"

    @property
    def otlp(self) -> str:
        """URL of the console's OTLP receiver (gRPC)."""
        return f"http://{self.address(topology.OTLP_GRPC)}"

    def urls(self) -> dict[str, str]:
        """Return the URLs of the ready file."""
        return {
            "app": self.app,
            "app_tls": self.app_tls,
            "console": f"http://{self.address(topology.CONSOLE)}",
            "outbox": f"http://{self.address(topology.OUTBOX)}",
            "sandbox": f"http://{self.address(topology.REDCAP)}",
            "otlp_grpc": self.otlp,
            "otlp_http": f"http://{self.address(topology.OTLP_HTTP)}",
        }
