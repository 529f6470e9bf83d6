"""Changes the owner of each volume to the user that writes to it, before anything else starts."""

from collections.abc import Iterator
from typing import Any

from mesh.render.compose.workloads import certificates, hardened, image
from mesh.render.deployment import Deployment
from mesh.render.readers import READERS, WORKLOADS, Reader

Service = dict[str, Any]
NAME = "volume-owners"
_FOLDER = "/volumes"


def service(deployed: Deployment) -> Service:
    """
    Return a container that runs once and changes the owner of each volume on disk.

    A new volume belongs to root unless the image has a folder of that name, which third-party
    images may lack.
    """
    owners = dict(_owners(deployed))
    commands = [f"chown {reader.user} {_FOLDER}/{name}" for name, reader in owners.items()]
    return {
        **image("authority"),
        "user": "0:0",
        "entrypoint": ["sh", "-ec"],
        "command": ["\n".join(commands)],
        "volumes": [f"{name}:{_FOLDER}/{name}" for name in owners],
        "network_mode": "none",
        "healthcheck": {"disable": True},
        **hardened("64M"),
        "cap_add": ["CHOWN"],
        "restart": "no",
    }


def first(services: dict[str, Service], deployed: Deployment) -> None:
    """Make each of *services* that mounts a volume on disk start after the owners are set."""
    owned = set(dict(_owners(deployed)))
    for found in services.values():
        mounted = {volume.partition(":")[0] for volume in found.get("volumes", ())}
        if owned & mounted:
            done = {NAME: {"condition": "service_completed_successfully"}}
            found["depends_on"] = found.get("depends_on", {}) | done


def _owners(deployed: Deployment) -> Iterator[tuple[str, Reader]]:
    for name in ("authority", *map(certificates, deployed.workloads), "stand-ins"):
        yield name, WORKLOADS
    for name, reader in READERS.items():
        if reader.data:
            yield name, reader
