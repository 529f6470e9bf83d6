"""
Every process of the mesh: name, identity, ports, program and dependencies.

The local runner starts these processes; Compose, Kubernetes and Prometheus are rendered from them.
"""

from dataclasses import dataclass
from enum import StrEnum

from mesh.contract.policy import Mesh
from mesh.contract.wire import HEALTH_PATH

TRUST_DOMAIN = "amarre.local"
NAMESPACE = "amarre"
PORT_BASE = 3000
RUNBOOKS = "https://docs.example.org/amarre/runbooks"
"""Where a site publishes ``docs/runbooks``, with the host name of an example: alerts link there."""


class Kind(StrEnum):
    """Role of a process in the mesh."""

    SERVICE = "service"
    PROXY = "proxy"
    BACKEND = "backend"


class Probe(StrEnum):
    """How the readiness of a process is checked."""

    GRPC = "grpc"
    HTTP = "http"
    ENVOY = "envoy"


class Stage(StrEnum):
    """Where a process runs: in every deployment, or only in trials and tests."""

    ALWAYS = "always"
    OUTSIDE_PRODUCTION = "outside-production"
    LOCAL = "local"


@dataclass(frozen=True)
class Process:
    """
    One program of the mesh.

    Ports are offsets from the port base. ``metrics`` and ``admin`` are those of ``/metrics`` and
    of the sidecar's admin interface; 0 means that there is none.
    """

    name: str
    kind: Kind
    module: str
    port: int
    probe: Probe
    probe_path: str = ""
    identity: str = ""
    metrics: int = 0
    admin: int = 0
    needs: tuple[str, ...] = ()
    stage: Stage = Stage.ALWAYS
    title: str = ""
    settings: str = ""
    """The class of its settings; empty if it reads no variables."""
    namespace: str = "amarre-app"
    """Kubernetes namespace of the process."""

    @property
    def has_sidecar(self) -> bool:
        """Whether the process has an Envoy as its sidecar."""
        return bool(self.identity)


EDGE_HTTP = 0
EDGE_HTTPS = 443
SURVEY, AUTH, HEALTH = 1, 2, 3
REDCAP, OUTBOX, SMTP = 10, 11, 12
CONSOLE, OTLP_GRPC, OTLP_HTTP = 20, 21, 22
PROMETHEUS, ALERTMANAGER = 40, 41
MONITORING = {
    "alertmanager": ("alertmanager", "prometheus-alertmanager"),
    "prometheus": ("prometheus",),
}
"""Names of the programs: upstream's first, then Debian's."""
REPLICA_METRICS, REPLICAS = (range(60, 70),), (range(70, 80),)
REPLICA_ADMIN = range(35, 40), range(80, 85)
"""The ports of further replicas and canaries; the allocator skips those that a process declares."""

PROCESSES = (
    Process(
        name="redcap",
        kind=Kind.BACKEND,
        module="sandbox.redcap",
        port=REDCAP,
        probe=Probe.HTTP,
        probe_path="/_control/health",
        stage=Stage.OUTSIDE_PRODUCTION,
        title="REDCap sandbox",
    ),
    Process(
        name="outbox",
        kind=Kind.BACKEND,
        module="sandbox.outbox",
        port=OUTBOX,
        probe=Probe.HTTP,
        probe_path="/_control/health",
        stage=Stage.OUTSIDE_PRODUCTION,
        title="mail outbox",
    ),
    Process(
        name="console",
        kind=Kind.BACKEND,
        module="mesh.console",
        settings="mesh.console.settings.ConsoleSettings",
        port=CONSOLE,
        probe=Probe.HTTP,
        probe_path=HEALTH_PATH,
        stage=Stage.LOCAL,
        title="console",
    ),
    Process(
        name="survey",
        kind=Kind.SERVICE,
        module="survey_svc",
        settings="survey_svc.config.SurveySettings",
        port=SURVEY,
        probe=Probe.GRPC,
        probe_path="amarre.survey.v1.SurveyService",
        identity="survey",
        metrics=51,
        admin=31,
        needs=("auth", "redcap"),
        namespace="amarre-surveys",
    ),
    Process(
        name="auth",
        kind=Kind.SERVICE,
        module="auth_svc",
        settings="auth_svc.config.AuthSettings",
        port=AUTH,
        probe=Probe.GRPC,
        probe_path="amarre.auth.v1.AuthService",
        identity="auth",
        metrics=52,
        admin=32,
        needs=("survey", "outbox", "console"),
        namespace="amarre-auth",
    ),
    Process(
        name="health",
        kind=Kind.SERVICE,
        module="health_svc",
        settings="health_svc.config.HealthSettings",
        port=HEALTH,
        probe=Probe.GRPC,
        probe_path="amarre.health.v1.HealthService",
        identity="health",
        metrics=53,
        admin=33,
        needs=("auth", "survey"),
    ),
    Process(
        name="gateway",
        kind=Kind.SERVICE,
        module="gateway",
        settings="gateway.config.GatewaySettings",
        port=EDGE_HTTP,
        probe=Probe.HTTP,
        probe_path=HEALTH_PATH,
        identity="gateway",
        metrics=50,
        admin=30,
        needs=("auth", "survey", "health"),
        title="application",
    ),
)


def declared_ports() -> list[int]:
    """Return the offsets of the ports of every first instance."""
    fixed = [EDGE_HTTP, EDGE_HTTPS, SMTP, OTLP_GRPC, OTLP_HTTP, PROMETHEUS, ALERTMANAGER]
    own = (port for p in PROCESSES for port in (p.port, p.metrics, p.admin))
    return fixed + [port for port in own if port]


def process(name: str) -> Process:
    """Return the process called *name*; KeyError when there is none."""
    return {p.name: p for p in PROCESSES}[name]


def clients_of(mesh: Mesh) -> dict[str, tuple[str, ...]]:
    """Return which services each workload calls, as the contracts declare; health asks all."""
    workloads = (*(p.name for p in PROCESSES if p.identity), *(s.name for s in mesh.services))
    found: dict[str, set[str]] = {name: set() for name in workloads}
    for caller, service in mesh.edges():
        if caller in found:  # operators call from outside of the mesh
            found[caller].add(service)
    found["health"] |= {service.name for service in mesh.services} - {"health"}
    return {name: tuple(sorted(services)) for name, services in found.items()}
