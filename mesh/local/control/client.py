"""Client of the control socket: sends control actions to a running mesh."""

from typing import Any

from mesh import control
from mesh.control import Progress
from mesh.local.data_folder import DataFolder
from mesh.local.running_mesh import read_ready_file


async def send_action(
    folder: DataFolder, name: str, progress: Progress, /, **arguments: Any
) -> Any:
    """Send an action to the mesh running from *folder*; return its result.

    Raises:
        NotRunningError: No mesh runs.
        ControlError: The action failed.
    """
    read_ready_file(folder)
    by = f"{control.current_user()} (terminal)"
    return await control.send_action(folder.control, name, progress, by=by, **arguments)
