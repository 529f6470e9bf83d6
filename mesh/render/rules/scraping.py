"""Where Prometheus looks, which rules it follows and whom it tells: from the topology."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mesh import topology
from mesh.render.envoy.text import document
from mesh.render.rules.pace import REAL, Pace
from mesh.topology import Kind

HOST = "127.0.0.1"
NODE_EXPORTER = 9100


@dataclass(frozen=True)
class Target:
    """Something that is scraped: job, process, the workload that it belongs to, address."""

    job: str
    process: str
    workload: str
    address: str


def targets(port_base: int = topology.PORT_BASE, host: str = HOST) -> Iterator[Target]:
    """Yield what the topology says is there: one replica each, and its proxy."""
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
    pace: Pace = REAL,
) -> str:
    """
    Return the configuration of Prometheus.

    Args:
        found: What to scrape; default: the topology on the standard ports.
        alertmanager: Where alerts go, HOST:PORT.
        pace: Of scraping and of the rules.
    """
    every = pace(minutes=0.25)
    known = list(targets() if found is None else found)
    jobs = [
        _job(name, path, [target for target in known if target.job == name])
        for name, path in (("amarre", "/metrics"), ("envoy", "/stats/prometheus"))
    ]
    return document(
        "Prometheus of the mesh: processes, proxies, host, and any other application.",
        {
            "global": {"scrape_interval": every, "evaluation_interval": every},
            "rule_files": ["rules/*.yaml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
            "scrape_configs": [
                *(job for job in jobs if job["static_configs"]),
                {
                    "job_name": "node",
                    "static_configs": [{"targets": [f"{HOST}:{NODE_EXPORTER}"]}],
                },
                {
                    # Other applications: docs/observability/other-applications.md
                    "job_name": "applications",
                    "file_sd_configs": [{"files": ["applications/*.yaml", "applications/*.json"]}],
                },
            ],
        },
    )


def _job(name: str, path: str, found: list[Target]) -> dict[str, Any]:
    return {
        "job_name": name,
        "metrics_path": path,
        "static_configs": [
            {
                "targets": [target.address],
                "labels": {"process": target.process, "workload": target.workload},
            }
            for target in found
        ],
    }
