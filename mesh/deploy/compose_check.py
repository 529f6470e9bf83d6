"""Checks of the Compose file beyond its schema: what is mounted, named, published, allowed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

Content = dict[str, Any]
PUBLISHED = {"gateway-envoy"}
PRIVATE = "./secrets/"
"""Below it stands what only the host has."""
HOST = {("alloy", "/var/run/docker.sock")}
"""What may be mounted of the host: lines of containers have no other way out."""


def load(folder: Path) -> Content:
    """Return the Compose file in *folder*."""
    content: Content = yaml.safe_load((folder / "compose.yaml").read_text())
    return content


def faults(content: Content, folder: Path) -> list[str]:
    """Return what is wrong with *content*, which stands in *folder*, each with its place."""
    checks: tuple[Callable[[Content], Iterator[str]], ...] = (
        lambda c: _mounts(c, folder),
        _names,
        _exposure,
        _rights,
    )
    return [fault for check in checks for fault in check(content)]


def _mounts(content: Content, folder: Path) -> Iterator[str]:
    for name, service in content["services"].items():
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.partition(":")[0]
            if source.startswith(PRIVATE):
                continue
            if source.startswith("/"):
                if (name, source) not in HOST:
                    yield f"service {name}: mounts {source} of the host"
            elif source.startswith("."):
                if not (folder / source).exists():
                    yield f"service {name}: mounts {source}, which is not there"
            elif source not in content["volumes"]:
                yield f"service {name}: mounts the volume {source}, which is not declared"


def _names(content: Content) -> Iterator[str]:
    services = content["services"]
    for name, service in services.items():
        for other, rule in service.get("depends_on", {}).items():
            if other not in services:
                yield f"service {name}: depends on {other}, which is no service"
            elif rule["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                yield f"service {name}: waits for the health of {other}, which tells none"
            elif "profiles" in services[other] and "profiles" not in service:
                yield f"service {name}: depends on {other}, which only a profile starts"
        for network in service.get("networks", []):
            if network not in content["networks"]:
                yield f"service {name}: is on the network {network}, which is not declared"
        for secret in service.get("secrets", []):
            source = secret["source"] if isinstance(secret, dict) else secret
            if source not in content["secrets"]:
                yield f"service {name}: needs the secret {source}, which is not declared"


def _exposure(content: Content) -> Iterator[str]:
    internal = {n for n, rules in content["networks"].items() if rules.get("internal")}
    for name in ("mesh", "data", "telemetry"):
        if name not in internal:
            yield f"network {name}: is not internal"
    for name, service in content["services"].items():
        for port in service.get("ports", []):
            if name not in PUBLISHED and not port.startswith("127.0.0.1:"):
                yield f"service {name}: publishes {port}; only the edge may"
        for value in service.get("environment", {}).values():
            if "password" in value.lower() and not value.startswith("/"):
                yield f"service {name}: has a password in its environment; use a secret"


def _rights(content: Content) -> Iterator[str]:
    for name, service in content["services"].items():
        if not service.get("read_only"):
            yield f"service {name}: its root is writable"
        if service.get("cap_drop") != ["ALL"]:
            yield f"service {name}: keeps capabilities"
        if "mem_limit" not in service:
            yield f"service {name}: has no memory limit"
        tag = service["image"].rpartition(":")[2]
        if tag == "latest" or "/" in tag:
            yield f"service {name}: the image {service['image']} names no version"
