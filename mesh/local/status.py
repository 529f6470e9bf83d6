"""``amarre status``: what runs, ready or why not."""

import asyncio
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from mesh import topology
from mesh.local.layout import Layout
from mesh.local.plan import Options, Plan, Unit
from mesh.local.probes import probe
from mesh.local.running import NotRunningError, is_alive, ready

__all__ = ["Line", "NotRunningError", "report", "show"]


@dataclass(frozen=True)
class Line:
    """One process."""

    name: str
    kind: str
    pid: int
    ready: bool
    why: str


async def report(layout: Layout) -> list[Line]:
    """
    Probe every process of the mesh that runs from *layout*.

    Raises:
        NotRunningError: None runs.
    """
    running = ready(layout)
    units = {unit.name: unit for unit in _plan(layout, running).units}
    return list(
        await asyncio.gather(*(_line(layout, process, units) for process in running["processes"]))
    )


async def _line(layout: Layout, process: dict[str, Any], units: dict[str, Unit]) -> Line:
    name, pid = process["name"], process["pid"]
    alive, unit = is_alive(pid), units.get(name)
    answers = alive and (unit is None or await probe(unit, layout.certs)())
    if answers:
        why = ""
    elif alive:
        why = f"runs, but does not say that it is ready; see {layout.logs / name}.log"
    else:
        why = f"is not running; see {layout.logs / name}.log"
    return Line(name, process["kind"], pid, answers, why)


def _plan(layout: Layout, running: dict[str, Any]) -> Plan:
    port = int(running["urls"]["app"].rpartition(":")[2])
    replicas: dict[str, int] = {}
    grpc = {p.name for p in topology.PROCESSES if p.probe is topology.Probe.GRPC}
    for process in running["processes"]:
        service = process["name"].partition("-")[0]
        if service in grpc and process["kind"] == topology.Kind.SERVICE:
            replicas[service] = max(replicas.get(service, 1), process["replica"])
    direct = all(process["kind"] != topology.Kind.PROXY for process in running["processes"])
    return Plan(layout, Options(port - topology.EDGE_HTTP, direct=direct, replicas=replicas))


def show(lines: list[Line]) -> None:
    """Print one row per process."""
    table = Table(box=None, pad_edge=False)
    for column in ("process", "kind", "pid", "ready", ""):
        table.add_column(column)
    for line in lines:
        state = "[green]yes[/]" if line.ready else "[red]no[/]"
        table.add_row(line.name, line.kind, str(line.pid), state, line.why)
    Console(highlight=False, soft_wrap=True).print(table)
