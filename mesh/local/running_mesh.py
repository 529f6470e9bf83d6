"""Find the running mesh of a data folder."""

import json
import os
from typing import Any

from mesh.local.data_folder import DataFolder


class NotRunningError(Exception):
    """No mesh runs from the data folder; the message says how to start one."""


def read_ready_file(data_folder: DataFolder) -> dict[str, Any]:
    """Return the ready file of the mesh running from *data_folder*.

    Raises:
        NotRunningError: No mesh runs.
    """
    try:
        found: dict[str, Any] = json.loads(data_folder.ready.read_text())
        pids = [int(process["pid"]) for process in found["processes"]]
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise NotRunningError(
            f"No mesh runs from {data_folder.data}. Start one with `make up` or `amarre up`, or "
            "name its folder with --data DIR or AMARRE_DATA."
        ) from exc
    if not any(map(is_alive, pids)):
        raise NotRunningError(
            f"The mesh of {data_folder.data} was killed: no process is running. Start it again."
        )
    return found


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0
