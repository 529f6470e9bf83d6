"""
Who sent an item: the service and the process that its resource names.

Source:
    OpenTelemetry semantic conventions, service: ``service.instance.id`` is unique only per
    ``service.namespace`` and ``service.name``.
"""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from mesh.console import naming
from mesh.contract.faults import WORKLOADS

OWN = "", "amarre"
"""The namespaces in which an instance id that begins with its service names the process alone, as
those of the mesh do; a sender may omit the namespace."""
MAX_NAME = 64
_DIGEST = 8
MAX_SERVICES = 2048
FORGOTTEN = timedelta(days=1) // timedelta(microseconds=1)
"""A service that has sent nothing for this long leaves room for another."""


class Sender(NamedTuple):
    """A sender; ``process`` is unlike that of any other, and the instance id in the mesh."""

    service: str
    instance: str
    process: str


class Services:
    """The services that the console distinguishes."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def admits(self, service: str, now: int) -> bool:
        """Return whether *service* is among them; workloads of the mesh always are."""
        if service not in self._seen and len(self._seen) >= MAX_SERVICES:
            self._seen = {name: at for name, at in self._seen.items() if at > now - FORGOTTEN}
        if service in self._seen or len(self._seen) < MAX_SERVICES:
            self._seen[service] = now
            return True
        return naming.workload(service) in WORKLOADS


def identify(resource: Mapping[str, Any]) -> Sender:
    """Return the sender with the attributes *resource*."""
    namespace, service, instance = (
        shortened(str(resource.get(f"service.{key}") or ""), MAX_NAME)
        for key in ("namespace", "name", "instance.id")
    )
    service = service or "unknown"
    if namespace in OWN and instance.startswith(service):
        return Sender(service, instance, instance)
    process = service if namespace in OWN else f"{namespace}/{service}"
    return Sender(service, instance, f"{process}:{instance}" if instance else process)


def shortened(text: str, length: int) -> str:
    """
    Return *text* in at most *length* characters; what differs in the rest stays different.

    No query can contain a null character, so that none is stored in a name.
    """
    text = text.replace("\0", "\ufffd")
    if len(text) <= length:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
    return f"{text[: length - _DIGEST - 1]}~{digest}"
