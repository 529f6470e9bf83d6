"""
Common model of deployments: workloads with addresses, identities and dependencies.

Istio, Kubernetes and Compose are rendered from this; it adds to topology and contracts only facts
that are specific to production.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mesh import topology
from mesh.contract import wire
from mesh.contract.model import CLIENTS
from mesh.contract.policy import Mesh
from mesh.topology import RUNBOOKS, Kind, Probe, Process, Stage

CLUSTER_DOMAIN = "svc.cluster.local"
SOCKETS = "/run/amarre"
"""The folder of Unix sockets that a workload shares with its sidecar."""
DRAIN_SECONDS = 10
"""How long a stopping workload continues to serve."""
KEY_SET_PORT = topology.PORT_BASE + 4
KEY_SET_PATH = "/.well-known/jwks.json"
EDGE = "edge"
"""The gateway deployment of Istio in front of our gateway; also its service account."""
OPERATOR = "operator"
ACCOUNTS = (OPERATOR, *sorted(CLIENTS))
"""Service accounts that call the mesh and of which it starts no process."""
APP_NAMESPACE = "amarre-app"
EDGE_NAMESPACE = "amarre-edge"
"""The edge may read every secret of its namespace, so no workload shares it."""
MONITORING = "monitoring"
HEALTH_SERVICE = "/grpc.health.v1.Health/"
"""Prefix of the paths of health checks."""
REFLECTION = tuple(f"/{service}/" for service in wire.REFLECTION)
"""Prefixes of the paths of server reflection, both versions."""
_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


class RenderError(Exception):
    """The input cannot be rendered; the message names the location."""


@dataclass(frozen=True)
class Workload:
    """One production process and its location."""

    process: Process

    @property
    def name(self) -> str:
        """The name of its service account, deployment and service."""
        return self.process.identity

    @property
    def namespace(self) -> str:
        """The Kubernetes namespace."""
        return self.process.namespace

    @property
    def host(self) -> str:
        """The host name inside a cluster."""
        return f"{self.name}.{self.namespace}.{CLUSTER_DOMAIN}"

    @property
    def port(self) -> int:
        """The port of its Kubernetes service and of its sidecar."""
        return topology.PORT_BASE + self.process.port

    @property
    def metrics_port(self) -> int:
        """The port of ``/metrics``."""
        return topology.PORT_BASE + self.process.metrics

    @property
    def is_grpc(self) -> bool:
        """Whether it speaks gRPC; else HTTP."""
        return self.process.probe is Probe.GRPC

    @property
    def socket(self) -> str:
        """The Unix socket that it listens on."""
        return f"{SOCKETS}/{self.name}.sock"

    @property
    def principal(self) -> str:
        """Its identity in the notation of Istio's policies."""
        return principal(self.namespace, self.name)

    @property
    def spiffe_id(self) -> str:
        """Its identity in certificates."""
        return f"spiffe://{self.principal}"


@dataclass(frozen=True)
class External:
    """A dependency outside the mesh."""

    name: str
    host: str
    port: int
    protocol: str
    users: tuple[str, ...]
    purpose: str


EXTERNALS = (
    External("redcap", "redcap.example.org", 443, "TLS", ("survey",), "the surveys"),
    External("appwrite", "appwrite.example.org", 443, "TLS", ("auth",), "an identity provider"),
    External("mail", "mail.example.org", 465, "TLS", ("auth",), "the mail of magic links"),
    External(
        "postgres",
        "postgres.example.org",
        5432,
        "TCP",
        ("auth", "survey"),
        "identities and reservations",
    ),
    External("redis", "redis.example.org", 6379, "TLS", ("survey",), "the shared cache"),
)
"""With example host names; each overlay sets its own."""


def principal(namespace: str, account: str) -> str:
    """Return the identity of a service account in the notation of Istio's policies."""
    return f"{topology.TRUST_DOMAIN}/ns/{namespace}/sa/{account}"


@dataclass(frozen=True)
class Deployment:
    """The validated workloads of production, and the contracts between them."""

    mesh: Mesh
    workloads: tuple[Workload, ...]
    externals: tuple[External, ...] = field(default=EXTERNALS)
    runbooks: str = RUNBOOKS
    """Base URL of the runbook links in alerts."""

    def workload(self, name: str) -> Workload:
        """Return the workload called *name*; KeyError when there is none."""
        return {w.name: w for w in self.workloads}[name]

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces of the workloads and the edge, sorted and without duplicates."""
        return tuple(sorted({EDGE_NAMESPACE, *(w.namespace for w in self.workloads)}))

    def principal_of(self, caller: str) -> str:
        """Return the identity of a caller in a contract."""
        if caller in ACCOUNTS:
            return principal(APP_NAMESPACE, caller)
        return self.workload(caller).principal

    def callees(self, name: str) -> tuple[Workload, ...]:
        """Return the workloads that *name* calls as declared; health calls every service."""
        called = {service for caller, service in self.mesh.edges() if caller in (name, "*")}
        if name == "health":
            called |= {service.name for service in self.mesh.services}
        return tuple(w for w in self.workloads if w.name in called - {name})

    def callers(self, name: str) -> tuple[Workload, ...]:
        """Return the workloads that call *name*, over gRPC."""
        return tuple(w for w in self.workloads if name in {c.name for c in self.callees(w.name)})

    def needs_keys(self, name: str) -> bool:
        """Return whether *name* verifies user tokens, and therefore fetches the key set of Auth."""
        return any(m.needs_session for m in self.mesh if m.service == name)

    def reached_by(self, name: str) -> tuple[External, ...]:
        """Return the dependencies of *name* outside the mesh."""
        return tuple(e for e in self.externals if name in e.users)


def load(mesh: Mesh, processes: Iterable[Process] = topology.PROCESSES) -> Deployment:
    """
    Return the production deployment of *processes*.

    Raises:
        RenderError: Names or ports conflict, or a contract has no process.
    """
    workloads = tuple(
        Workload(p) for p in processes if p.kind is Kind.SERVICE and p.stage is Stage.ALWAYS
    )
    faults = [*_names(workloads), *_ports(workloads), *_services(mesh, workloads)]
    if faults:
        raise RenderError("\n".join(f"mesh/topology.py: {fault}" for fault in faults))
    return Deployment(mesh, workloads)


def _names(workloads: Sequence[Workload]) -> list[str]:
    faults = [
        f"process {w.process.name!r}: {what} {text!r} is not a valid Kubernetes name; use at "
        "most 63 of a-z, 0-9 and -, starting with a letter"
        for w in workloads
        for what, text in (("identity", w.name), ("namespace", w.namespace))
        if not _LABEL.fullmatch(text)
    ]
    reserved = {EDGE, *ACCOUNTS}
    for name, count in Counter(w.name for w in workloads).items():
        if count > 1:
            faults.append(f"{count} processes have the identity {name!r}; give each its own")
        if name in reserved:
            faults.append(f"the identity {name!r} is reserved by the mesh; choose another")
    return faults


def _ports(workloads: Sequence[Workload]) -> list[str]:
    owners: dict[int, list[str]] = {KEY_SET_PORT: ["the key set of auth"]}
    for w in workloads:
        owners.setdefault(w.port, []).append(f"{w.name} (service)")
        if w.process.metrics:
            owners.setdefault(w.metrics_port, []).append(f"{w.name} (/metrics)")
    return [
        f"port {port} is used by {' and '.join(who)}; give each its own"
        for port, who in sorted(owners.items())
        if len(who) > 1
    ]


def _services(mesh: Mesh, workloads: Sequence[Workload]) -> list[str]:
    contracts = {service.name for service in mesh.services}
    processes = {w.name for w in workloads if w.is_grpc}
    faults = [f"the contract of {n!r} has no process" for n in sorted(contracts - processes)]
    faults += [
        f"process {n!r} serves gRPC, but has no contract" for n in sorted(processes - contracts)
    ]
    known = {w.name for w in workloads} | {*ACCOUNTS, "*"}
    faults += [
        f"{method.source} lets {caller!r} call, but no process has that identity"
        for method in mesh
        for caller in method.callers
        if caller not in known
    ]
    return faults
