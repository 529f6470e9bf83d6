"""The workloads, each with its Envoy, and the authority that issues the Envoys' certificates."""

from collections.abc import Mapping
from typing import Any

from mesh import topology
from mesh.render.compose import envoys
from mesh.render.deployment import DRAIN_SECONDS, SOCKETS, Deployment, Workload
from mesh.render.docker import STATE, version
from mesh.render.environment import SECRETS, Place, environment, secret_files
from mesh.render.envoy import arguments, overload
from mesh.render.readers import READERS, WORKLOADS

Service = dict[str, Any]
MEMORY = {"gateway": "384M", "survey": "384M", "auth": "384M", "health": "256M"}
SITE_VARIABLES = {
    "AMARRE_ENV": "production",
    "AMARRE_ALLOWED_EMAIL_DOMAINS": "example.org",
    "AMARRE_AUTH_LINK_URL": "https://amarre.example.org/login",
    "AMARRE_AUTH_MAIL_FROM": "AMARRE <no-reply@amarre.example.org>",
    "AMARRE_AUTH_SMTP_URL": "smtps://amarre@mail.example.org:465",
    "AMARRE_GATEWAY_ORIGINS": "https://amarre.example.org",
    "AMARRE_HEALTH_ALLOWED_HOSTS": "redcap.example.org",
    "AMARRE_HEALTH_BACKENDS": '{"redcap": "https://redcap.example.org/"}',
    "AMARRE_SURVEY_REDCAP_URL": "https://redcap.example.org/api/",
}
"""The variables that each site sets in ``site.env``; none has a default."""
_REDCAP = f"http://redcap:{topology.PORT_BASE + topology.REDCAP}"
SANDBOX_VARIABLES = {
    "AMARRE_ENV": "development",
    "AMARRE_ALLOWED_EMAIL_DOMAINS": "example.org",
    "AMARRE_AUTH_LINK_URL": "https://localhost/login",
    "AMARRE_AUTH_MAIL_FROM": "AMARRE <no-reply@example.org>",
    "AMARRE_AUTH_SMTP_URL": f"smtp://outbox:{topology.PORT_BASE + topology.SMTP}",
    "AMARRE_GATEWAY_ORIGINS": "https://localhost",
    "AMARRE_HEALTH_ALLOWED_HOSTS": "redcap",
    "AMARRE_HEALTH_BACKENDS": f'{{"redcap": "{_REDCAP}/"}}',
    "AMARRE_SURVEY_REDCAP_URL": f"{_REDCAP}/api/",
}
"""The same variables for testing on one machine, with the profile ``sandbox``."""
COLLECTOR = "http://otel-collector:4317"


def place() -> Place:
    """Return the addresses of workloads and backends in Compose."""
    return Place(
        site="https://amarre.example.org",
        address=lambda _: f"unix:{SOCKETS}/egress.sock",
        authority="auth",
        # The collector is in a profile: without it, nothing is exported.
        collector="${AMARRE_OTLP_ENDPOINT:-}",
        namespace="amarre",
        key_set_socket=f"{envoys.KEYS}/keys.sock",
        key_set_listen=f"unix:{envoys.KEYS}/keys.sock",
    )


def secrets(deployed: Deployment) -> set[str]:
    """Return the secret files of all workloads."""
    return {name for w in deployed.workloads for name in secret_files(w.name)}


def services(deployed: Deployment) -> dict[str, Service]:
    """Return the services."""
    found = {"authority": _authority(deployed)}
    for workload in deployed.workloads:
        found[workload.name] = _workload(deployed, workload)
        found[envoys.container(workload)] = _envoy(deployed, workload)
    return found


def volumes(deployed: Deployment) -> dict[str, Any]:
    """Return the volumes: sockets in memory, the authority's root and certificates on disk."""
    in_memory = {f"sockets-{w.name}": "1m" for w in deployed.workloads} | {"keys": "1m"}
    on_disk: dict[str, Any] = {"authority": {}, **{certificates(w): {} for w in deployed.workloads}}
    return {name: memory(size) for name, size in in_memory.items()} | on_disk


def certificates(workload: Workload) -> str:
    """Return the volume with the certificate of *workload*, on disk to survive restarts."""
    return f"certs-{workload.name}"


def memory(size: str) -> dict[str, Any]:
    """Return a volume in memory that the workloads' user owns."""
    options = f"size={size},uid={WORKLOADS.uid},gid={WORKLOADS.gid},mode=0770"
    return {"driver": "local", "driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": options}}


def hardened(limit: str) -> Service:
    """Return common container options: no capabilities, read-only root, limits, restarts."""
    return {
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "mem_limit": limit,
        "pids_limit": 256,
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}},
    }


def image(target: str) -> Service:
    """Return the image of a Dockerfile target, with its build options."""
    registry = "${AMARRE_REGISTRY:-registry.example.org/amarre}"
    return {
        "image": f"{registry}/{target}:${{AMARRE_VERSION:-{version()}}}",
        "build": {
            "context": "../../..",
            "dockerfile": "mesh/deploy/docker/Dockerfile",
            "target": target,
            "args": {"PYTHON_DIGEST": "${PYTHON_DIGEST:-}", "VERSION": "${AMARRE_VERSION:-}"},
        },
        "user": WORKLOADS.user,
    }


def from_site(variables: Mapping[str, str]) -> dict[str, str]:
    """Return *variables*, with site-specific ones taken from ``site.env``."""
    return {
        key: f"${{{key}:?set it in site.env}}" if key in SITE_VARIABLES else value
        for key, value in variables.items()
    }


def site_examples() -> dict[str, str]:
    """Return the examples of ``site.env``: for a site, and for testing with the sandbox."""
    return {
        "site.env.example": _site_example(
            "Copy to site.env and change every value; Compose does not start without them.",
            SITE_VARIABLES,
            profiles="# COMPOSE_PROFILES=telemetry",
        ),
        "site.env.sandbox": _site_example(
            "Copy to site.env for testing at https://localhost with the REDCap sandbox.",
            SANDBOX_VARIABLES,
            profiles="COMPOSE_PROFILES=sandbox",
        ),
    }


def _site_example(title: str, variables: Mapping[str, str], *, profiles: str) -> str:
    lines = [
        f"# {title}",
        "AMARRE_REGISTRY=registry.example.org/amarre",
        f"AMARRE_VERSION={version()}",
        *(f"{key}='{value}'" for key, value in variables.items()),
        "# Profiles to start, separated by commas.",
        profiles,
        "# Endpoint for telemetry; set it together with the profile telemetry.",
        f"# AMARRE_OTLP_ENDPOINT='{COLLECTOR}'",
        "# Address of node exporter. Default: the address of Docker's bridge.",
        "# AMARRE_HOST_ADDRESS='10.0.0.5'",
    ]
    return "\n".join(lines) + "\n"


def _authority(deployed: Deployment) -> Service:
    keys = (f"test -s {envoys.CERTS}/{w.name}/tls.key" for w in deployed.workloads)
    user = f"uid={WORKLOADS.uid},gid={WORKLOADS.gid}"
    return {
        **image("authority"),
        "command": ["run", f"{STATE}/ca", envoys.CERTS],
        "volumes": [
            f"authority:{STATE}",
            *(f"{certificates(w)}:{envoys.CERTS}/{w.name}" for w in deployed.workloads),
        ],
        # Identities without a container, such as the operator's, are kept here.
        "tmpfs": [f"{envoys.CERTS}:{user},mode=0700,size=1m"],
        "network_mode": "none",
        "healthcheck": {
            "test": ["CMD-SHELL", " && ".join(keys)],
            "interval": "2s",
            "timeout": "15s",
            "start_period": "120s",
        },
        **hardened("128M"),
    }


def _workload(deployed: Deployment, workload: Workload) -> Service:
    variables = environment(deployed, workload, place())
    # Prometheus scrapes it over the network telemetry.
    variables["AMARRE_METRICS_LISTEN"] = f"0.0.0.0:{workload.metrics_port}"
    variables["AMARRE_INSTANCE"] = workload.name
    mounted = [f"sockets-{workload.name}:{SOCKETS}"]
    if deployed.needs_keys(workload.name):
        mounted.append(f"keys:{envoys.KEYS}")
    networks = ["telemetry"]
    if deployed.reached_by(workload.name):
        networks += ["data", "outside"]
    elif workload.name == "health":
        networks.append("outside")
    depends = {"postgres": "service_healthy", "redis": "service_healthy"}
    found: Service = {
        **image(workload.name),
        # Excluded from log collection: with an endpoint, it sends its logs over OTLP.
        "labels": {"amarre.logs": "otlp"},
        "environment": from_site(variables),
        "volumes": mounted,
        "tmpfs": ["/tmp:size=32m,mode=1777"],  # noqa: S108 - the container's own
        "secrets": [
            {"source": name, "target": f"{SECRETS}/{name}"} for name in secret_files(workload.name)
        ],
        "networks": networks,
        "depends_on": {
            name: {"condition": condition}
            for name, condition in depends.items()
            if "data" in networks
        },
        "stop_grace_period": "30s",
        **hardened(MEMORY.get(workload.name, "384M")),
    }
    if not workload.is_grpc:
        found["healthcheck"] = _edge_check(workload)
    return found


def _edge_check(workload: Workload) -> Service:
    """Return the gateway's health check: HTTPS through its Envoy, whose image has no shell."""
    address = f"{envoys.container(workload)}:{envoys.HTTPS}"
    return {
        "test": [
            *("CMD", "python", "-m", "mesh.chassis.probe", "https", address),
            *(workload.process.probe_path, "alive"),
        ],
        "interval": "10s",
        "timeout": "15s",
        "start_period": "120s",
    }


def _envoy(deployed: Deployment, workload: Workload) -> Service:
    name, reader = envoys.container(workload), READERS["envoy"]
    capacity = overload.capacity_of(envoys.proxy(deployed, workload))
    mounted = [
        f"./envoy/{name}:{envoys.FOLDER}:ro",
        f"sockets-{workload.name}:{SOCKETS}",
        f"{certificates(workload)}:{envoys.CERTS}:ro",
    ]
    if deployed.needs_keys(workload.name):
        mounted.append(f"keys:{envoys.KEYS}")
    found: Service = {
        "image": reader.image,
        "user": reader.user,
        "command": list(arguments(envoys.FOLDER, DRAIN_SECONDS)),
        "volumes": mounted,
        "networks": ["mesh", "telemetry"],
        "depends_on": {
            "authority": {"condition": "service_healthy"},
            workload.name: {"condition": "service_started"},
        },
        "stop_grace_period": "15s",
        **hardened(f"{capacity.memory_bytes // overload.MIB}M"),
    }
    if not workload.is_grpc:
        found["networks"] = ["edge", "mesh", "telemetry"]
        found["ports"] = [f"80:{envoys.HTTP}", f"443:{envoys.HTTPS}"]
        mounted.append(f"./secrets/edge:{envoys.EDGE_TLS}:ro")
    return found
