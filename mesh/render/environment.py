"""
The environment variables and secrets of each workload in production.

Secrets are files: ``AMARRE_SECRETS_DIR`` for settings with passwords, paths for all others.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from mesh import topology
from mesh.chassis.config import GRPC_EXPERIMENTS
from mesh.render.deployment import KEY_SET_PATH, SOCKETS, Deployment, Workload

SECRETS = "/etc/amarre/secrets"
SITE = "amarre.example.org"
REDCAP = "redcap.example.org"
MAIL = "mail.example.org"
PSEUDONYM_KEY = "pseudonym-key"
SECRET_FILES = {
    "auth": (
        "amarre_auth_database",
        "auth-signing-key.pem",
        "smtp-password",
        PSEUDONYM_KEY,
    ),
    "survey": ("amarre_survey_store", "amarre_survey_cache", "redcap-token", PSEUDONYM_KEY),
}
"""The secret files of each workload; all others have only the pseudonym key."""


@dataclass(frozen=True)
class Place:
    """The differences between Kubernetes and Compose."""

    site: str
    """The public origin, ``https://amarre.example.org``."""
    address: Callable[[Workload], str]
    """Returns the address of another workload."""
    authority: str
    """Host and port of the key set in its URL."""
    collector: str
    """The OTLP endpoint, ``http://otel-collector:4317``."""
    namespace: str
    """The namespace in identities."""
    namespaces: bool = False
    """Whether each workload has its own namespace."""
    key_set_socket: str = ""
    """The socket of the key set; empty: over the network."""
    key_set_listen: str = f"unix:{SOCKETS}/keys.sock"


def secret_files(name: str) -> tuple[str, ...]:
    """Return the secret files of the workload *name*."""
    return SECRET_FILES.get(name, (PSEUDONYM_KEY,))


def environment(deployed: Deployment, workload: Workload, place: Place) -> dict[str, str]:
    """Return the variables of *workload*, without secrets."""
    found = {
        "AMARRE_ENV": "production",
        "AMARRE_TRANSPORT": "sidecar",
        "AMARRE_NAMESPACE": place.namespace,
        "AMARRE_METRICS_LISTEN": f"127.0.0.1:{workload.metrics_port}",
        "AMARRE_SECRETS_DIR": SECRETS,
        "AMARRE_PSEUDONYM_KEY_FILE": f"{SECRETS}/{PSEUDONYM_KEY}",
        "AMARRE_PEERS": json.dumps(
            {w.name: place.address(w) for w in deployed.callees(workload.name)}
        ),
        "AMARRE_ALLOWED_EMAIL_DOMAINS": "example.org",
        "OTEL_EXPORTER_OTLP_ENDPOINT": place.collector,
        # Prometheus scrapes /metrics: with an additional push, every series would exist twice.
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.05",
        "GRPC_EXPERIMENTS": GRPC_EXPERIMENTS,
        "PYTHONUNBUFFERED": "1",
    }
    if place.namespaces:
        found["AMARRE_NAMESPACES"] = json.dumps(
            {w.name: w.namespace for w in deployed.workloads if w.namespace != place.namespace}
        )
    if workload.is_grpc:
        found["AMARRE_LISTEN"] = f"unix:{workload.socket}"
    if deployed.needs_keys(workload.name):
        found["AMARRE_KEY_SET_URL"] = f"http://{place.authority}{KEY_SET_PATH}"
        if place.key_set_socket:
            found["AMARRE_KEY_SET_SOCKET"] = place.key_set_socket
    return dict(sorted((found | _own(workload, place)).items()))


def _own(workload: Workload, place: Place) -> dict[str, str]:
    match workload.name:
        case "auth":
            return {
                "AMARRE_AUTH_SIGNING_KEY_FILE": f"{SECRETS}/auth-signing-key.pem",
                "AMARRE_AUTH_KEY_SET_LISTEN": place.key_set_listen,
                "AMARRE_AUTH_SMTP_URL": f"smtps://amarre@{MAIL}:465",
                "AMARRE_AUTH_SMTP_PASSWORD_FILE": f"{SECRETS}/smtp-password",
                "AMARRE_AUTH_MAIL_FROM": f"AMARRE <no-reply@{SITE}>",
                "AMARRE_AUTH_LINK_URL": f"{place.site}/login",
            }
        case "survey":
            return {
                "AMARRE_SURVEY_REDCAP_URL": f"https://{REDCAP}/api/",
                "AMARRE_SURVEY_REDCAP_TOKEN_FILE": f"{SECRETS}/redcap-token",
            }
        case "health":
            return {
                "AMARRE_HEALTH_ALLOWED_HOSTS": REDCAP,
                "AMARRE_HEALTH_BACKENDS": json.dumps({"redcap": f"https://{REDCAP}/"}),
            }
        case "gateway":
            return {
                "AMARRE_GATEWAY_HTTP_LISTEN": f"unix:{workload.socket}",
                "AMARRE_GATEWAY_ORIGINS": place.site,
            }
        case _:
            return {}


def probe_command(workload: Workload) -> list[str]:
    """Return the readiness command of *workload*'s container."""
    kind = "grpc" if workload.process.probe is topology.Probe.GRPC else "http"
    address = f"unix:{workload.socket}"
    return ["python", "-m", "mesh.chassis.probe", kind, address, workload.process.probe_path]
