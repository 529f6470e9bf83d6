"""The configuration of Prometheus: targets, rule files, Alertmanager. From the topology."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mesh import topology
from mesh.render.rules.pace import REAL, Pace
from mesh.render.signals import schema
from mesh.render.yaml_text import document
from mesh.topology import Kind

HOST = "127.0.0.1"
NODE_EXPORTER = 9100
MACHINE = "host"
"""The label ``host`` of all targets on a laptop or with Compose."""


@dataclass(frozen=True)
class Target:
    """A scrape target: job, process, workload, address."""

    job: str
    process: str
    workload: str
    address: str


def targets(port_base: int = topology.PORT_BASE, host: str = HOST) -> Iterator[Target]:
    """Yield the targets of the topology: one replica each, and its proxy."""
    for process in topology.PROCESSES:
        if process.metrics:
            address = f"{host}:{port_base + process.metrics}"
            yield Target("amarre", process.name, process.identity, address)
    for process in topology.PROCESSES:
        if process.admin and process.kind is Kind.SERVICE:
            address = f"{host}:{port_base + process.admin}"
            yield Target("envoy", f"{process.name}-envoy", process.identity, address)


def configuration(
    found: Iterable[Target] | None = None,
    *,
    alertmanager: str = f"{HOST}:{topology.PORT_BASE + topology.ALERTMANAGER}",
    host: str = HOST,
    pace: Pace = REAL,
    from_files: bool = False,
    watched: Mapping[str, str] | None = None,
) -> str:
    """
    Return the configuration of Prometheus.

    Args:
        found: The targets; default: the topology on the standard ports.
        alertmanager: Address of Alertmanager, HOST:PORT.
        host: Address of node exporter; None without one.
        pace: Scales scrape and evaluation intervals.
        from_files: Whether targets are read from `target_files` rather than listed here.
        watched: Monitoring programs to scrape, HOST:PORT by name.
    """
    every = pace(minutes=0.25)
    known = list(targets() if found is None else found)
    jobs = [
        _followed(name) if from_files else _listed(name, known)
        for name in _PATHS
        if from_files or any(target.job == name for target in known)
    ]
    return document(
        "Prometheus of the mesh: processes, proxies, host, other applications.",
        {
            "global": {"scrape_interval": every, "evaluation_interval": every},
            "rule_files": ["rules/*.yaml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
            "scrape_configs": [
                *jobs,
                {
                    "job_name": "node",
                    "static_configs": [
                        {"targets": [f"{host}:{NODE_EXPORTER}"], "labels": {"host": MACHINE}}
                    ],
                },
                *([_monitoring(watched)] if watched else []),
                {
                    # Other applications: docs/how-to/observe-other-applications.md
                    "job_name": "applications",
                    "file_sd_configs": [{"files": ["applications/*.yaml", "applications/*.json"]}],
                },
            ],
        },
    )


def target_files(found: Iterable[Target]) -> dict[str, str]:
    """Return the targets as files for Prometheus' file discovery."""
    known = list(found)
    return {
        _target_file(name): json.dumps([_entry(t) for t in known if t.job == name], indent=2)
        for name in _PATHS
    }


def _monitoring(watched: Mapping[str, str]) -> dict[str, Any]:
    targets = [
        {"targets": [address], "labels": {"process": name}} for name, address in watched.items()
    ]
    return {"job_name": "monitoring", "static_configs": targets}


_PATHS = {"amarre": "/metrics", "envoy": "/stats/prometheus"}
"""The metrics path of each job."""


def _listed(name: str, known: Iterable[Target]) -> dict[str, Any]:
    entries = [_entry(target) for target in known if target.job == name]
    return {
        "job_name": name,
        "metrics_path": _PATHS[name],
        "static_configs": entries,
        **_kept(name),
    }


def _followed(name: str) -> dict[str, Any]:
    files = {"files": [_target_file(name)]}
    return {
        "job_name": name,
        "metrics_path": _PATHS[name],
        "file_sd_configs": [files],
        **_kept(name),
    }


def _kept(name: str) -> dict[str, Any]:
    """Keep only the Envoy series that a rule or a dashboard uses, about 2 %."""
    if name != "envoy":
        return {}
    read = "|".join(sorted(schema()["foreign_metrics"]["envoy"]))
    return {
        "metric_relabel_configs": [{"source_labels": ["__name__"], "regex": read, "action": "keep"}]
    }


def _target_file(name: str) -> str:
    return f"targets/{name}.json"


def _entry(target: Target) -> dict[str, Any]:
    labels = {"host": MACHINE, "process": target.process, "workload": target.workload}
    return {"targets": [target.address], "labels": labels}
