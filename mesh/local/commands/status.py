"""``amarre status``: what runs, ready or why not."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from mesh.control import ControlError
from mesh.local.control import client
from mesh.local.data_folder import DataFolder
from mesh.local.running_mesh import NotRunningError, is_alive, read_ready_file

__all__ = ["Line", "NotRunningError", "report", "show"]


@dataclass(frozen=True)
class Line:
    """One process."""

    name: str
    kind: str
    pid: int
    ready: bool
    why: str


async def report(layout: DataFolder) -> list[Line]:
    """
    Ask the mesh that runs from *layout* how each of its processes is.

    Raises:
        NotRunningError: None runs.
    """
    try:
        found = await client.send_action(layout, "status", lambda _: None)
    except ControlError:
        # Whoever started the processes is gone or stuck; all that can be told is who lives.
        found = [process | {"ready": False} for process in read_ready_file(layout)["processes"]]
    return [_line(layout, process) for process in found]


def _line(layout: DataFolder, process: dict[str, Any]) -> Line:
    name, pid = process["name"], process["pid"]
    log = layout.logs / f"{name}.log"
    if process["ready"]:
        why = ""
    elif is_alive(pid):
        why = f"runs, but does not say that it is ready; see {log}"
    else:
        why = f"is not running; see {log}"
    return Line(name, process["kind"], pid, process["ready"], why)


def show(lines: list[Line]) -> None:
    """Print one row per process."""
    table = Table(box=None, pad_edge=False)
    for column in ("process", "kind", "pid", "ready", ""):
        table.add_column(column)
    for line in lines:
        state = "[green]yes[/]" if line.ready else "[red]no[/]"
        table.add_row(line.name, line.kind, str(line.pid), state, line.why)
    Console(highlight=False, soft_wrap=True).print(table)
