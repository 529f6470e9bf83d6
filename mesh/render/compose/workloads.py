"""The workloads, each with its Envoy, and the authority that gives the Envoys certificates."""

from collections.abc import Mapping
from typing import Any

from mesh.render.compose import envoys
from mesh.render.deployment import DRAIN_SECONDS, SOCKETS, Deployment, Workload
from mesh.render.docker import STATE, USER, version
from mesh.render.environment import SECRETS, Place, environment, secret_files
from mesh.render.envoy import arguments

Service = dict[str, Any]
ENVOY_IMAGE = "docker.io/envoyproxy/envoy:distroless-v1.40.0"
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
"""What a site says of itself in ``site.env``; there is no default that would go unnoticed."""


def place() -> Place:
    """Return how workloads find things in Compose."""
    return Place(
        site="https://amarre.example.org",
        address=lambda _: f"unix:{SOCKETS}/egress.sock",
        authority="auth",
        collector="http://otel-collector:4317",
        namespace="amarre",
        key_set_socket=f"{envoys.KEYS}/keys.sock",
        key_set_listen=f"unix:{envoys.KEYS}/keys.sock",
    )


def secrets(deployed: Deployment) -> set[str]:
    """Return the secret files of all workloads."""
    return {name for w in deployed.workloads for name in secret_files(w.name)}


def services(deployed: Deployment) -> dict[str, Service]:
    """Return the services."""
    found = {"authority": _authority()}
    for workload in deployed.workloads:
        found[workload.name] = _workload(deployed, workload)
        found[envoys.container(workload)] = _envoy(deployed, workload)
    return found


def volumes(deployed: Deployment) -> dict[str, Any]:
    """Return the volumes: sockets and certificates in memory, the authority's root on disk."""
    in_memory = {f"sockets-{w.name}": "1m" for w in deployed.workloads}
    in_memory |= {"keys": "1m", "certs": "4m"}
    return {name: memory(size) for name, size in in_memory.items()} | {"authority": {}}


def memory(size: str) -> dict[str, Any]:
    """Return a volume in memory that the containers' user owns."""
    options = f"size={size},uid={USER},gid={USER},mode=0770"
    return {"driver": "local", "driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": options}}


def hardened(limit: str) -> Service:
    """Return what every container has: no rights, no writable root, a limit, restarts."""
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
    """Return the image of a target of the Dockerfile, and how it is built."""
    registry = "${AMARRE_REGISTRY:-registry.example.org/amarre}"
    return {
        "image": f"{registry}/{target}:${{AMARRE_VERSION:-{version()}}}",
        "build": {
            "context": "../../..",
            "dockerfile": "mesh/deploy/docker/Dockerfile",
            "target": target,
            "args": {"PYTHON_DIGEST": "${PYTHON_DIGEST:-}", "VERSION": "${AMARRE_VERSION:-}"},
        },
        "user": f"{USER}:{USER}",
    }


def from_site(variables: Mapping[str, str]) -> dict[str, str]:
    """Return *variables*, with those that a site states to be read from its ``site.env``."""
    return {
        key: f"${{{key}:?state it in site.env}}" if key in SITE_VARIABLES else value
        for key, value in variables.items()
    }


def site_example() -> str:
    """Return an example of ``site.env``."""
    lines = [
        "# Copy to site.env and state what holds for this site; compose refuses to start without.",
        "AMARRE_REGISTRY=registry.example.org/amarre",
        f"AMARRE_VERSION={version()}",
        *(f"{key}='{value}'" for key, value in SITE_VARIABLES.items()),
        "# Where node exporter listens; left out: at the address of Docker's bridge.",
        "# AMARRE_HOST_ADDRESS='10.0.0.5'",
    ]
    return "\n".join(lines) + "\n"


def _authority() -> Service:
    command = [f"{STATE}/ca", envoys.CERTS]
    return {
        **image("authority"),
        "command": ["run", *command],
        "volumes": [f"authority:{STATE}", f"certs:{envoys.CERTS}"],
        "network_mode": "none",
        "healthcheck": {
            "test": ["CMD", "python", "-m", "mesh.deploy.authority", "check", *command],
            "interval": "5s",
            "timeout": "3s",
            "start_period": "20s",
        },
        **hardened("128M"),
    }


def _workload(deployed: Deployment, workload: Workload) -> Service:
    variables = environment(deployed, workload, place())
    # On its own networks alone; Prometheus fetches it there.
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
    return {
        **image(workload.name),
        # Whoever collects what containers write leaves this one out: it sends lines itself.
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


def _envoy(deployed: Deployment, workload: Workload) -> Service:
    name = envoys.container(workload)
    certs = {
        "type": "volume",
        "source": "certs",
        "target": envoys.CERTS,
        "read_only": True,
        "volume": {"subpath": workload.name},
    }
    mounted: list[Any] = [
        f"./envoy/{name}:{envoys.FOLDER}:ro",
        f"sockets-{workload.name}:{SOCKETS}",
        certs,
    ]
    if deployed.needs_keys(workload.name):
        mounted.append(f"keys:{envoys.KEYS}")
    found: Service = {
        "image": ENVOY_IMAGE,
        "user": f"{USER}:{USER}",
        "command": list(arguments(envoys.FOLDER, DRAIN_SECONDS)),
        "volumes": mounted,
        "networks": ["mesh", "telemetry"],
        "depends_on": {
            "authority": {"condition": "service_healthy"},
            workload.name: {"condition": "service_started"},
        },
        "stop_grace_period": "15s",
        **hardened("128M"),
    }
    if not workload.is_grpc:
        found["networks"] = ["edge", "mesh", "telemetry"]
        found["ports"] = [f"80:{envoys.HTTP}", f"443:{envoys.HTTPS}"]
        mounted.append(f"./secrets/edge:{envoys.EDGE_TLS}:ro")
    return found
