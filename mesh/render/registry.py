"""
The targets of ``amarre render``, with the folders of the committed files.

``python -m mesh.render.registry`` writes the committed files of all targets in one process;
with ``--check`` it fails if one differs.
"""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

Files = dict[str, str]
ROOT = Path(__file__).resolve().parents[2]

TARGETS: Mapping[str, tuple[str, str]] = {
    "alertmanager": ("mesh.render.rules.alertmanager", "mesh/observability/alertmanager"),
    "collector": ("mesh.render.collector", "mesh/observability/collector"),
    "backstage": ("mesh.render.backstage", "docs/reference/rendered"),
    "dashboards": ("mesh.render.dashboards", "mesh/observability/grafana"),
    "compose": ("mesh.render.compose", "mesh/deploy/compose"),
    "docker": ("mesh.render.docker", "mesh/deploy/docker"),
    "envoy": ("mesh.render.envoy", "mesh/envoy"),
    "grpc": ("mesh.render.grpc", "mesh/deploy/grpc"),
    "istio": ("mesh.render.istio", "mesh/istio"),
    "kubernetes": ("mesh.render.kubernetes", "mesh/deploy/kubernetes"),
    "openapi": ("mesh.render.openapi", "docs/reference/rendered"),
    "ports": ("mesh.render.reference.ports", "docs/reference/rendered"),
    "rules": ("mesh.render.rules", "mesh/observability/prometheus"),
    "settings": ("mesh.render.reference.settings", "docs/reference/rendered"),
    "signals": ("mesh.render.signals", "docs/reference/rendered"),
}
"""Module with ``render() -> Files``, and the folder of the committed files."""
WITH_ALERTS = ("kubernetes", "rules")
"""Targets whose alerts link to runbooks."""


def render(target: str, runbooks: str = "") -> Files:
    """
    Return the files of *target*: relative path to text.

    Args:
        target: Its name.
        runbooks: Base URL of the published ``docs/runbooks``; empty for the example host.
    """
    function: Callable[..., Files] = import_module(TARGETS[target][0]).render
    return function(runbooks.rstrip("/")) if runbooks and target in WITH_ALERTS else function()


def committed(target: str) -> Path:
    """Return the folder of the committed files of *target*."""
    return ROOT / TARGETS[target][1]


def drift(files: Files, folder: Path) -> list[str]:
    """Return the paths in *folder* that differ from *files*, are missing or are obsolete."""
    differing = [
        name
        for name, text in files.items()
        if not (folder / name).is_file() or (folder / name).read_text() != text
    ]
    # In a shared folder, the files of other targets are not obsolete.
    shared = sum(folder == committed(target) for target in TARGETS) > 1
    suffixes = set() if shared else {Path(name).suffix for name in files}
    left_over = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix in suffixes and path.relative_to(folder).as_posix() not in files
    ]
    return sorted(differing + left_over)


def write(files: Files, folder: Path) -> None:
    """Write *files* to *folder*."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def main(arguments: list[str]) -> int:
    """Write the committed files, or with ``--check`` compare them; return the exit status."""
    differing = []
    for target in TARGETS:
        files = render(target)
        if "--check" in arguments:
            differing += [f"{TARGETS[target][1]}/{n}" for n in drift(files, committed(target))]
        else:
            write(files, committed(target))
    if differing:
        print("Differ from the contract or topology; run `make render`:", *differing, sep="\n  ")
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
