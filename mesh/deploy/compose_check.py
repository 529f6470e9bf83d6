"""Checks of the Compose file beyond its schema: mounts, names, published ports, permissions."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

Content = dict[str, Any]
PUBLISHED = {"gateway-envoy"}
PRIVATE = "./secrets/"
"""The folder of files that exist only on the host."""
HOST = {("alloy", "/var/run/docker.sock")}
"""Host paths that may be mounted, to collect container logs."""


def load(folder: Path) -> Content:
    """Return the Compose file in *folder*."""
    content: Content = yaml.safe_load((folder / "compose.yaml").read_text())
    return content


def faults(content: Content, folder: Path) -> list[str]:
    """Return the problems of *content*, a file in *folder*, each with its location."""
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
                    yield f"service {name}: mounts {source}, which does not exist"
            elif source not in content["volumes"]:
                yield f"service {name}: mounts the volume {source}, which is not declared"


def _names(content: Content) -> Iterator[str]:
    services = content["services"]
    for name, service in services.items():
        for other, rule in service.get("depends_on", {}).items():
            if other not in services:
                yield f"service {name}: depends on {other}, which is not a service"
            elif rule["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                yield f"service {name}: waits for the health of {other}, which has no health check"
            elif "profiles" in services[other] and "profiles" not in service:
                yield f"service {name}: depends on {other}, which is started only by a profile"
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
            yield f"service {name}: its root file system is writable"
        if service.get("cap_drop") != ["ALL"]:
            yield f"service {name}: keeps capabilities"
        if "mem_limit" not in service:
            yield f"service {name}: has no memory limit"
        tag = service["image"].rpartition(":")[2]
        if tag == "latest" or "/" in tag:
            yield f"service {name}: the image {service['image']} has no version"
