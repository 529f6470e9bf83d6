"""Plan of a local mesh: commands and environment of every process, from topology and options."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mesh import topology
from mesh.chassis import otel_environment
from mesh.contract import policy
from mesh.local.addresses import HOST, Addresses
from mesh.local.data_folder import DataFolder
from mesh.local.processes import environment, envoy, telemetry_variables
from mesh.local.processes.port_allocator import InstancePorts, PortAllocator
from mesh.render.envoy import Collector, Edge, Proxy, Telemetry
from mesh.topology import Kind, Probe, Process

INHERITED = (
    *("PATH", "HOME", "LANG", "TZ", "TMPDIR", "GRPC_EXPERIMENTS"),
    *("AMARRE_ENV", "AMARRE_RATE_LIMITS"),
)
"""Variables that a process inherits from the runner, in addition to AMARRE_ and OTEL_ ones."""


LOWEST_BASE, HIGHEST_BASE = 1024, 32_000
MOST_REPLICAS = 4


@dataclass(frozen=True)
class Options:
    """Options of ``amarre up``."""

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
    ports: InstancePorts | None = None
    proxy: Proxy | None = None
    """The Envoy's model if this unit is one; None for processes."""


class PlanError(Exception):
    """The options are invalid; the message says why."""


class Plan:
    """The units of a local mesh."""

    def __init__(self, data_folder: DataFolder, options: Options) -> None:
        self.addresses = Addresses(data_folder, options.port_base)
        self.options = options
        self.port_allocator = PortAllocator()
        self._check()
        self._service_ports: dict[str, list[int]] = {}
        planned = [
            (process, replica, self._ports(process, replica))
            for process in topology.PROCESSES
            for replica in range(1, self._replicas(process) + 1)
        ]
        self.units = tuple(
            unit
            for process, replica, ports in planned
            for unit in self.instance(process, _name(process, replica), replica, ports)
        )

    def _check(self) -> None:
        known = sorted(p.name for p in topology.PROCESSES if p.kind is Kind.SERVICE)
        for name, count in self.options.replicas.items():
            if name not in known:
                raise PlanError(f"--replicas {name}={count}: choose one of {', '.join(known)}.")
            if not 1 <= count <= MOST_REPLICAS:
                raise PlanError(
                    f"--replicas {name}={count}: choose a number from 1 to {MOST_REPLICAS}."
                )
            if count > 1 and self.options.direct and _at_edge(topology.process(name)):
                raise PlanError(
                    f"--replicas {name}={count}: several replicas of {name} share its ports "
                    "through their Envoys. Start without --direct."
                )
        if not LOWEST_BASE <= self.options.port_base <= HIGHEST_BASE:
            raise PlanError(
                f"--port-base {self.options.port_base}: choose a number from {LOWEST_BASE} to "
                f"{HIGHEST_BASE}."
            )
        inherited()
        if not self.options.direct:
            self._collector("traces")
            self._collector("logs")

    def _replicas(self, process: Process) -> int:
        return self.options.replicas.get(process.name, 1)

    def _ports(self, process: Process, replica: int) -> InstancePorts:
        ports = self.port_allocator.take(process, own=replica == 1)
        self._service_ports.setdefault(process.name, []).append(self.addresses.port(ports.main))
        return ports

    def service_ports(self, name: str) -> list[int]:
        """Return the gRPC port of every replica of a service."""
        return self._service_ports[name]

    def endpoints(self) -> dict[str, tuple[str, ...]]:
        """Return the addresses of the replicas of each service."""
        return {
            p.name: tuple(f"{HOST}:{port}" for port in self.service_ports(p.name))
            for p in topology.PROCESSES
            if p.probe is Probe.GRPC and p.name in self._service_ports
        }

    def instance(
        self,
        process: Process,
        name: str,
        replica: int,
        ports: InstancePorts,
        *,
        command: tuple[str, ...] | None = None,
        port: int | None = None,
    ) -> tuple[Unit, ...]:
        """Return the units of one instance of *process*: the process, and its Envoy if it has one.

        Args:
            process: Its place in the topology.
            name: Its name, ``survey-canary``.
            replica: Its number.
            ports: The ports allocated to it.
            command: Command to run instead of the usual one; it gets the same environment.
            port: The port to take over from a running instance. Default: that of *ports*.
        """
        where = _Endpoints(
            folder=self.addresses.data_folder.sockets
            / (name if ports.tag == process.name else f"{name}.{ports.tag}"),
            # Replicas at the edge share its ports: the kernel distributes connections.
            port=port or self.addresses.port(process.port if _at_edge(process) else ports.main),
            ports=ports,
        )
        usual = (
            sys.executable,
            "-m",
            process.module,
            *environment.arguments(self.addresses, process),
        )
        itself = Unit(
            process=process,
            name=name,
            replica=replica,
            port=where.port,
            command=command or usual,
            environment=self._environment(process, name, where),
            kind=process.kind,
            probe=process.probe,
            probe_target=self._probe_target(process, where),
            ports=ports,
        )
        if not self._behind_envoy(process):
            return (itself,)
        return (itself, self._proxy_unit(itself, where))

    def _behind_envoy(self, process: Process) -> bool:
        return process.has_sidecar and not self.options.direct

    def _collector(self, signal: str) -> Collector | None:
        """Return where the proxies send *signal*; None if it is not exported."""
        variables = telemetry_variables.with_default(os.environ, self.addresses.otlp)
        where = otel_environment.endpoint(variables, signal)
        if where is None or not otel_environment.is_exported(signal, variables):
            return None
        headers = otel_environment.headers(variables, signal)
        if where.tls:
            raise PlanError(
                f"The local proxies cannot send {signal} over TLS to {where}. Use an http://"
                " endpoint, such as a collector on this machine, or start with --direct."
            )
        if any("%" in value for value in headers.values()):
            raise PlanError(
                "The local proxies cannot send a telemetry header with a percent sign. Change "
                "OTEL_EXPORTER_OTLP_HEADERS, or start with --direct."
            )
        return Collector(where.address, tuple(headers.items()))

    def _probe_target(self, process: Process, where: "_Endpoints") -> str:
        if self._behind_envoy(process):
            return f"unix:{where.app}"
        if process.probe is Probe.GRPC:
            return f"{HOST}:{where.port}"
        return f"http://{HOST}:{where.port}"

    def _proxy_unit(self, unit: Unit, where: "_Endpoints") -> Unit:
        at_edge = _at_edge(unit.process)
        name = f"{unit.name}-envoy"
        folder = self.addresses.data_folder.envoy / f"{name}.{where.ports.tag}"
        proxy = Proxy(
            name=name,
            workload=unit.process.identity,
            folder=str(folder),
            svid_dir=str(self.addresses.data_folder.certs / unit.process.identity),
            admin=self.addresses.address(where.ports.admin),
            app=f"unix:{where.app}",
            egress=f"unix:{where.egress}",
            inbound="" if at_edge else f"{HOST}:{where.port}",
            key_set="" if at_edge else f"unix:{self.addresses.key_set}",
            edge=self._edge() if at_edge else None,
            telemetry=Telemetry(
                traces=self._collector("traces"),
                logs=self._collector("logs"),
                sampling_percent=100 * otel_environment.sampling_share(os.environ, 1.0),
                environment=os.environ.get("AMARRE_ENV", "development"),
            ),
        )
        return Unit(
            process=unit.process,
            name=name,
            replica=unit.replica,
            port=where.port,
            command=envoy.command(folder),
            environment={key: value for key, value in os.environ.items() if key in INHERITED},
            kind=Kind.PROXY,
            probe=Probe.ENVOY,
            probe_target=proxy.admin,
            ports=where.ports,
            proxy=proxy,
        )

    def _edge(self) -> Edge:
        return Edge(
            http=self.addresses.address(topology.EDGE_HTTP),
            https=self.addresses.address(topology.EDGE_HTTPS),
            tls_dir=str(self.addresses.data_folder.certs / "edge"),
            rate_limits=os.environ.get("AMARRE_RATE_LIMITS", "on") != "off",
        )

    def _environment(self, process: Process, name: str, where: "_Endpoints") -> dict[str, str]:
        common = {
            "AMARRE_INSTANCE": name,
            "AMARRE_TRANSPORT": "direct" if self.options.direct else "sidecar",
            "AMARRE_PSEUDONYM_KEY_FILE": str(self.addresses.data_folder.secret("pseudonym-key")),
            "PYTHONUNBUFFERED": "1",
        }
        defaults = environment.defaults(self.addresses, process)
        if process.identity:
            defaults[otel_environment.ENDPOINT] = self.addresses.otlp
            if not telemetry_variables.pushes_metrics(inherited()):
                # With a push, the console would have every series twice.
                defaults["OTEL_METRICS_EXPORTER"] = "none"
            common |= {
                "AMARRE_LISTEN": f"{HOST}:{where.port}",
                "AMARRE_SVID_DIR": str(self.addresses.data_folder.certs / process.identity),
                "AMARRE_PEERS": json.dumps(self._peers(process, where)),
                "AMARRE_KEY_SET_SOCKET": str(self.addresses.key_set),
                # The identities that the local CA issues and the proxies accept.
                "AMARRE_TRUST_DOMAIN": topology.TRUST_DOMAIN,
                "AMARRE_NAMESPACE": topology.NAMESPACE,
                "AMARRE_NAMESPACES": "{}",
            }
        if self._behind_envoy(process):
            common["AMARRE_LISTEN"] = f"unix:{where.app}"
            if _at_edge(process):
                common |= {
                    "AMARRE_GATEWAY_HTTP_LISTEN": f"unix:{where.app}",
                    "AMARRE_GATEWAY_HTTPS_LISTEN": "",
                }
        if process.metrics:
            common["AMARRE_METRICS_LISTEN"] = self.addresses.address(where.ports.metrics)
        # The user's environment overrides these defaults, except where a process
        # is bound to its place in this mesh.
        return defaults | inherited() | common

    def _peers(self, process: Process, where: "_Endpoints") -> dict[str, str]:
        callees = topology.clients_of(policy.load())[process.name]
        if self._behind_envoy(process):
            return dict.fromkeys(callees, f"unix:{where.egress}")
        return {
            service: _target([f"{HOST}:{port}" for port in self.service_ports(service)])
            for service in callees
            if service in self._service_ports
        }

    def ports_in_use(self) -> dict[int, str]:
        """Return every TCP port that this mesh listens on, and the process that needs it."""
        wanted = {unit.port: unit.name for unit in self.units}
        wanted[self.addresses.port(topology.EDGE_HTTPS)] = "gateway (HTTPS)"
        wanted[self.addresses.port(topology.SMTP)] = "outbox (SMTP)"
        wanted[self.addresses.port(topology.OTLP_GRPC)] = "console (OTLP gRPC)"
        wanted[self.addresses.port(topology.OTLP_HTTP)] = "console (OTLP HTTP)"
        for unit in self.units:
            if unit.proxy is not None:
                admin = int(unit.proxy.admin.rpartition(":")[2])
                wanted[admin] = f"{unit.name} (admin)"
            listen = unit.environment.get("AMARRE_METRICS_LISTEN")
            if listen:
                wanted[int(listen.rpartition(":")[2])] = f"{unit.name} (/metrics)"
        return wanted


@dataclass(frozen=True)
class _Endpoints:
    """The sockets and ports of one instance; only its Envoy shares the folder."""

    folder: Path
    port: int
    ports: InstancePorts

    @property
    def app(self) -> Path:
        return self.folder / "app.sock"

    @property
    def egress(self) -> Path:
        return self.folder / "egress.sock"


def inherited() -> dict[str, str]:
    """Return the variables that the mesh's processes inherit from the runner.

    Raises:
        PlanError: An OpenTelemetry variable is invalid.
    """
    try:
        of_telemetry = telemetry_variables.inherited(os.environ)
    except otel_environment.OtelVariableError as error:
        raise PlanError(str(error)) from error
    ours = (key for key in os.environ if key in INHERITED or key.startswith("AMARRE_"))
    return {key: os.environ[key] for key in ours} | of_telemetry


def _name(process: Process, replica: int) -> str:
    return process.name if replica == 1 else f"{process.name}-{replica}"


def _at_edge(process: Process) -> bool:
    return process.port == topology.EDGE_HTTP


def _target(addresses: list[str]) -> str:
    return addresses[0] if len(addresses) == 1 else f"ipv4:{','.join(addresses)}"
