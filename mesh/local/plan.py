"""
The plan of a local mesh: which commands run with which environment, from topology and options.
"""

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh import topology
from mesh.contract import policy
from mesh.local.layout import Layout
from mesh.topology import Kind, Probe, Process

HOST = "127.0.0.1"
KEPT = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "AMARRE_ENV", "AMARRE_RATE_LIMITS")
"""What a process gets of the runner's own environment, besides every AMARRE_ and OTEL_ variable."""


@dataclass(frozen=True)
class Options:
    """What ``amarre up`` was asked for."""

    port_base: int = topology.PORT_BASE
    direct: bool = False
    replicas: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """One process to run: its place in the topology, its name among replicas, its command."""

    process: Process
    name: str
    replica: int
    port: int
    command: tuple[str, ...]
    environment: Mapping[str, str]
    kind: Kind
    probe: Probe
    probe_target: str


class PlanError(Exception):
    """The options ask for something that cannot be; the message says what."""


class Plan:
    """The units of a local mesh."""

    def __init__(self, layout: Layout, options: Options) -> None:
        self.layout = layout
        self.options = options
        self._check()
        self.units = tuple(
            self.unit(process, replica)
            for process in topology.PROCESSES
            if importlib.util.find_spec(f"{process.module}.__main__")
            for replica in range(1, self._replicas(process) + 1)
        )

    def _check(self) -> None:
        known = {p.name for p in topology.PROCESSES if p.probe is Probe.GRPC}
        for name, count in self.options.replicas.items():
            if name not in known:
                raise PlanError(f"--replicas {name}=…: there is {', '.join(sorted(known))}.")
            if not 1 <= count <= 4:
                raise PlanError(f"--replicas {name}={count}: 1 to 4 are possible here.")
        if not 1024 <= self.options.port_base <= 32_000:
            raise PlanError(f"--port-base {self.options.port_base}: 1024 to 32000 is possible.")

    def _replicas(self, process: Process) -> int:
        return self.options.replicas.get(process.name, 1)

    def port(self, offset: int) -> int:
        """Return the port with this *offset*."""
        return self.options.port_base + offset

    def address(self, offset: int) -> str:
        """Return host and port with this *offset*."""
        return f"{HOST}:{self.port(offset)}"

    def service_ports(self, name: str) -> list[int]:
        """Return the gRPC port of every replica of a service."""
        process = topology.process(name)
        first = [self.port(process.port)]
        return first + [
            self.port(self._replica_slot(process, replica, topology.REPLICAS))
            for replica in range(2, self._replicas(process) + 1)
        ]

    def _replica_slot(self, process: Process, replica: int, base: int) -> int:
        services = [p.name for p in topology.PROCESSES if p.probe is Probe.GRPC]
        return base + services.index(process.name) * 3 + replica - 2

    def unit(self, process: Process, replica: int) -> Unit:
        """Return how one replica of *process* is run."""
        name = process.name if replica == 1 else f"{process.name}-{replica}"
        port = self.port(process.port)
        metrics = process.metrics
        if replica > 1:
            port = self.service_ports(process.name)[replica - 1]
            metrics = self._replica_slot(process, replica, topology.REPLICA_METRICS)
        environment = self._environment(process, name, port, metrics)
        target = (
            f"{HOST}:{port}"
            if process.probe is Probe.GRPC
            else f"http://{HOST}:{port}{process.probe_path}"
        )
        return Unit(
            process=process,
            name=name,
            replica=replica,
            port=port,
            command=(sys.executable, "-m", process.module, *self._arguments(process)),
            environment=environment,
            kind=process.kind,
            probe=process.probe,
            probe_target=target,
        )

    def _arguments(self, process: Process) -> tuple[str, ...]:
        state, layout = self.layout.state, self.layout
        match process.name:
            case "redcap":
                return (
                    *("--listen", self.address(topology.REDCAP)),
                    *("--base-url", f"http://{self.address(topology.REDCAP)}"),
                    *("--database", str(state / "redcap.sqlite")),
                    *("--token-file", str(layout.secret("redcap-token"))),
                    *("--super-token-file", str(layout.secret("redcap-super-token"))),
                )
            case "outbox":
                return (
                    *("--http", self.address(topology.OUTBOX)),
                    *("--smtp", self.address(topology.SMTP)),
                    *("--database", str(state / "outbox.sqlite")),
                )
            case _:
                return ()

    def _environment(self, process: Process, name: str, port: int, metrics: int) -> dict[str, str]:
        inherited = {
            key: value
            for key, value in os.environ.items()
            if key in KEPT or key.startswith(("AMARRE_", "OTEL_"))
        }
        common = {
            "AMARRE_INSTANCE": name,
            "AMARRE_TRANSPORT": "direct" if self.options.direct else "sidecar",
            "AMARRE_PSEUDONYM_KEY_FILE": str(self.layout.secret("pseudonym-key")),
            "PYTHONUNBUFFERED": "1",
        }
        if process.identity:
            common |= {
                "AMARRE_LISTEN": f"{HOST}:{port}",
                "AMARRE_SVID_DIR": str(self.layout.certs / process.identity),
                "AMARRE_PEERS": json.dumps(self._peers(process)),
                "AMARRE_KEY_SET_SOCKET": str(self.layout.sockets / "keys.sock"),
            }
        if metrics:
            common["AMARRE_METRICS_LISTEN"] = self.address(metrics)
        # What the user sets in the environment wins over these defaults, except where a process
        # is bound to its place in this mesh.
        return self._defaults(process) | inherited | common

    def _peers(self, process: Process) -> dict[str, str]:
        callees = topology.clients_of(policy.load())[process.name]
        return {
            service: _target([f"{HOST}:{port}" for port in self.service_ports(service)])
            for service in callees
        }

    def _defaults(self, process: Process) -> dict[str, str]:
        layout = self.layout
        state = layout.state
        app = f"http://{self.address(topology.EDGE_HTTP)}"
        match process.name:
            case "auth":
                return {
                    "AMARRE_AUTH_DATABASE": f"sqlite+aiosqlite:///{state / 'auth.sqlite'}",
                    "AMARRE_AUTH_SIGNING_KEY_FILE": str(layout.secret("auth-signing-key.pem")),
                    "AMARRE_AUTH_KEY_SET_LISTEN": f"unix:{layout.sockets / 'keys.sock'}",
                    "AMARRE_AUTH_SMTP_URL": f"smtp://{self.address(topology.SMTP)}",
                    "AMARRE_AUTH_LINK_URL": f"{app}/login",
                }
            case "survey":
                return {
                    "AMARRE_SURVEY_REDCAP_URL": f"http://{self.address(topology.REDCAP)}/api/",
                    "AMARRE_SURVEY_REDCAP_TOKEN_FILE": str(layout.secret("redcap-token")),
                    "AMARRE_SURVEY_STORE": f"sqlite+aiosqlite:///{state / 'survey.sqlite'}",
                }
            case "health":
                return {
                    "AMARRE_HEALTH_BACKENDS": json.dumps(
                        {
                            other.name: f"http://{self.address(other.port)}{other.probe_path}"
                            for other in map(topology.process, ("redcap", "outbox"))
                        }
                    ),
                }
            case "gateway":
                hosts = (HOST, "localhost")
                origins = [f"http://{h}:{self.port(topology.EDGE_HTTP)}" for h in hosts]
                origins += [f"https://{h}:{self.port(topology.EDGE_HTTPS)}" for h in hosts]
                return {
                    "AMARRE_GATEWAY_HTTP_LISTEN": self.address(topology.EDGE_HTTP),
                    "AMARRE_GATEWAY_HTTPS_LISTEN": self.address(topology.EDGE_HTTPS),
                    "AMARRE_GATEWAY_TLS_DIR": str(layout.certs / "edge"),
                    "AMARRE_GATEWAY_ORIGINS": ",".join(origins),
                }
            case "console":
                return {
                    "AMARRE_CONSOLE_LISTEN": self.address(topology.CONSOLE),
                    "AMARRE_CONSOLE_OTLP_GRPC": self.address(topology.OTLP_GRPC),
                    "AMARRE_CONSOLE_OTLP_HTTP": self.address(topology.OTLP_HTTP),
                    "AMARRE_CONSOLE_DATABASE": str(state / "console.sqlite"),
                    "AMARRE_CONSOLE_TOKEN_FILE": str(layout.secret("console-token")),
                    "AMARRE_CONSOLE_SCRAPE": json.dumps(self._scraped()),
                }
            case _:
                return {}

    def _scraped(self) -> list[dict[str, str]]:
        return [
            {"process": p.name, "url": f"http://{self.address(p.metrics)}/metrics"}
            for p in topology.PROCESSES
            if p.metrics
        ]

    def ports_in_use(self) -> dict[int, str]:
        """Return every TCP port that this mesh listens on, and which process wants it."""
        wanted = {unit.port: unit.name for unit in self.units}
        wanted[self.port(topology.EDGE_HTTPS)] = "gateway (HTTPS)"
        wanted[self.port(topology.SMTP)] = "outbox (SMTP)"
        wanted[self.port(topology.OTLP_GRPC)] = "console (OTLP gRPC)"
        wanted[self.port(topology.OTLP_HTTP)] = "console (OTLP HTTP)"
        for unit in self.units:
            listen = unit.environment.get("AMARRE_METRICS_LISTEN")
            if listen:
                wanted[int(listen.rpartition(":")[2])] = f"{unit.name} (/metrics)"
        return wanted

    def urls(self) -> dict[str, str]:
        """Return the URLs of the ready file."""
        return {
            "app": f"http://{self.address(topology.EDGE_HTTP)}",
            "app_tls": f"https://localhost:{self.port(topology.EDGE_HTTPS)}",
            "console": f"http://{self.address(topology.CONSOLE)}",
            "outbox": f"http://{self.address(topology.OUTBOX)}",
            "sandbox": f"http://{self.address(topology.REDCAP)}",
            "otlp_grpc": f"http://{self.address(topology.OTLP_GRPC)}",
            "otlp_http": f"http://{self.address(topology.OTLP_HTTP)}",
        }


def _target(addresses: list[str]) -> str:
    return addresses[0] if len(addresses) == 1 else f"ipv4:{','.join(addresses)}"
