"""
Compose for staging on one host: workloads and their Envoys, data, telemetry, networks.

    workloads   services with their Envoys, the authority that gives them certificates
    backends    PostgreSQL, Redis, the stand-ins
    telemetry   Prometheus, Alertmanager, collector, traces, logs, Grafana
    envoys      the proxies' files, from the same renderer as on a laptop
"""

from typing import Any

from mesh.contract import policy
from mesh.render import deployment
from mesh.render.compose import backends, envoys, telemetry, workloads
from mesh.render.deployment import Deployment
from mesh.render.manifest import text

WHY = """\
Staging on one host: docker compose --env-file site.env up -d. See README.md.
Networks keep apart who need not meet: edge (browsers), mesh (proxies, mutual TLS), data, telemetry
and outside (REDCap, mail). Only the edge is published."""


def render() -> dict[str, str]:
    """Return the files of this installation's contracts."""
    return files(deployment.load(policy.load()))


def files(deployed: Deployment) -> dict[str, str]:
    """Return the files of *deployed*."""
    content: dict[str, Any] = {
        "name": "amarre",
        "services": {
            **workloads.services(deployed),
            **backends.services(),
            **telemetry.services(),
        },
        "networks": {
            "edge": {},
            "outside": {},
            **{name: {"internal": True} for name in ("mesh", "data", "telemetry")},
        },
        "volumes": {**workloads.volumes(deployed), **backends.volumes(), **telemetry.volumes()},
        "secrets": {
            name: {"file": f"./secrets/{name}"}
            for name in sorted({*workloads.secrets(deployed), *backends.SECRETS})
        },
    }
    return {
        "compose.yaml": text(WHY, content),
        "site.env.example": workloads.site_example(),
        **backends.files(),
        **telemetry.files(deployed),
        **envoys.files(deployed),
    }
