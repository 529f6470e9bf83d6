"""Label each container with a digest of the files mounted into it.

Compose compares declarations, not files: without the label, a changed file has no effect.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from mesh.render import registry

Service = dict[str, Any]
LABEL = "amarre.files"
_OBSERVABILITY = "../../observability/"
_RENDERED = {
    "alertmanager": "alertmanager",
    "collector": "collector",
    "grafana": "dashboards",
    "prometheus": "rules",
}
"""The render target of each folder in ``mesh/observability``; other folders are hand-written."""
_FOLLOWED = ("prometheus/applications",)
"""Folders that the program watches itself; sites add files there."""


def label(services: Mapping[str, Service], rendered: Mapping[str, str]) -> None:
    """Label each of *services* that mounts files; *rendered* are those of this target."""
    for service in services.values():
        texts = [
            f"{name}\n{text}"
            for volume in service.get("volumes", ())
            for name, text in sorted(_files(volume.partition(":")[0], rendered))
        ]
        if texts:
            digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
            service["labels"] = service.get("labels", {}) | {LABEL: digest}


def _files(source: str, rendered: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if source.startswith("./"):
        yield from _below(source.removeprefix("./"), rendered)
    elif source.startswith(_OBSERVABILITY):
        path = source.removeprefix(_OBSERVABILITY)
        if path in _FOLLOWED:
            return
        folder, _, rest = path.partition("/")
        if folder in _RENDERED:
            yield from _below(rest, registry.render(_RENDERED[folder]))
        else:
            file = registry.ROOT / "mesh" / "observability" / path
            yield path, file.read_text()


def _below(path: str, files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, text in files.items():
        if name == path or PurePosixPath(path) in PurePosixPath(name).parents:
            yield name, text
