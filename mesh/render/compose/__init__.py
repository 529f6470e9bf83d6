"""
Compose for staging on one host: workloads and their Envoys, data, telemetry, networks.

    workloads   services with their Envoys, the authority that issues certificates
    backends    PostgreSQL, Redis, the sandbox
    telemetry   Prometheus, Alertmanager, collector, traces, logs, Grafana
    envoys      the proxies' files, from the same renderer as on a laptop
    owners      the owner of each volume
    digests     a label per container that changes with the files mounted into it
"""

import json
from typing import Any

from mesh.contract import policy
from mesh.render import deployment
from mesh.render.compose import backends, digests, envoys, owners, telemetry, workloads
from mesh.render.deployment import Deployment
from mesh.render.manifest import text
from mesh.render.readers import owners as secret_owners

WHY = """\
Staging on one host: docker compose --env-file site.env up -d. See README.md.
Separate networks: edge (browsers), mesh (proxies, mutual TLS), data, telemetry and outside
(REDCap, mail). Only the edge is published to other machines."""


def render() -> dict[str, str]:
    """Return the files of this installation's contracts."""
    return files(deployment.load(policy.load()))


def files(deployed: Deployment) -> dict[str, str]:
    """Return the files of *deployed*."""
    services = {
        **workloads.services(deployed),
        **backends.services(),
        **telemetry.services(),
    }
    owners.first(services, deployed)
    mounted = {
        **backends.files(),
        **telemetry.files(deployed),
        **envoys.files(deployed),
    }
    digests.label(services, mounted)
    content: dict[str, Any] = {
        "name": "amarre",
        "services": {owners.NAME: owners.service(deployed), **services},
        "networks": {
            "edge": {},
            "outside": {},
            **{name: {"internal": True} for name in ("mesh", "data", "telemetry")},
        },
        "volumes": {**workloads.volumes(deployed), **backends.volumes(), **telemetry.volumes()},
        "secrets": {
            name: {"file": f"./secrets/{name}"}
            for name in sorted({*workloads.secrets(deployed), *backends.SECRETS, telemetry.SECRET})
        },
    }
    return {
        "compose.yaml": text(WHY, content),
        "readers.json": _readers(),
        **workloads.site_examples(),
        **mounted,
    }


def _readers() -> str:
    """Return the owner of each secret for `mesh.deploy.compose_secrets`."""
    found = {
        name: {"uid": reader.uid, "gid": reader.gid}
        for name, reader in sorted(secret_owners().items())
    }
    return json.dumps(found, indent=2) + "\n"
