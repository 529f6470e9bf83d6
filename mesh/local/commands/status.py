"""``amarre status``: the readiness of every process, and current problems."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mesh.control import ControlError
from mesh.local.control import client
from mesh.local.data_folder import DataFolder
from mesh.local.running_mesh import NotRunningError, is_alive, read_ready_file

__all__ = ["Line", "NotRunningError", "Report", "report", "show"]


@dataclass(frozen=True)
class Line:
    """One process."""

    name: str
    kind: str
    pid: int
    ready: bool
    why: str


@dataclass(frozen=True)
class Report:
    """State of a mesh."""

    lines: list[Line]
    problems: list[str]
    """Current problems, one sentence each."""

    @property
    def ready(self) -> bool:
        """Whether every process is ready."""
        return all(line.ready for line in self.lines)


async def report(data_folder: DataFolder) -> Report:
    """Return the state of each process of the mesh running from *data_folder*.

    Raises:
        NotRunningError: No mesh runs.
    """
    try:
        found = await client.send_action(data_folder, "status", lambda _: None)
    except ControlError as exc:
        # The runner is gone or stuck: all that can be checked is which processes are alive.
        processes = [
            process | {"ready": False} for process in read_ready_file(data_folder)["processes"]
        ]
        found = {"processes": processes, "problems": [str(exc)]}
    return Report(
        [_line(data_folder, process) for process in found["processes"]], found["problems"]
    )


def _line(data_folder: DataFolder, process: dict[str, Any]) -> Line:
    name, pid = process["name"], process["pid"]
    log = data_folder.logs / f"{name}.log"
    if process["ready"]:
        why = ""
    elif is_alive(pid):
        why = f"running but not ready; see {log}"
    else:
        why = f"not running; see {log}"
    return Line(name, process["kind"], pid, process["ready"], why)


def show(found: Report) -> None:
    """Print one row per process, then the problems."""
    table = Table(box=None, pad_edge=False)
    for column in ("process", "kind", "pid", "ready", ""):
        table.add_column(column)
    for line in found.lines:
        state = "[green]yes[/]" if line.ready else "[red]no[/]"
        table.add_row(line.name, line.kind, str(line.pid), state, escape(line.why))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    for problem in found.problems:
        console.print(f"[yellow]problem[/] {escape(problem)}")
