"""Runs the administration programs of Auth and Survey with the settings of a local mesh."""

import re
import subprocess
import sys
from typing import Any

from mesh.local.data_folder import DataFolder
from mesh.local.processes.plan import Options, Plan

_ERASED = re.compile(r"^Erased (\S+):", re.MULTILINE)


def auth(folder: DataFolder, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Auth's program, which changes users."""
    return _run(folder, "auth", "auth_svc.identities", *arguments, **options)


def erase(folder: DataFolder, user: str, *, yes: bool) -> int:
    """Erase a user in Auth, then in Survey, which only knows ids; return the exit status."""
    confirmed = ["--yes"] if yes else []
    done = auth(folder, "erase", user, *confirmed, stdout=subprocess.PIPE, text=True)
    sys.stdout.write(done.stdout)
    sys.stdout.flush()
    erased = _ERASED.search(done.stdout)
    if done.returncode or erased is None:
        return done.returncode or 1
    return _run(folder, "survey", "survey_svc.erasure", erased[1], *confirmed).returncode


def _run(
    folder: DataFolder, unit: str, module: str, *arguments: str, **options: Any
) -> subprocess.CompletedProcess[str]:
    units = Plan(folder, Options()).units
    environment = next(one for one in units if one.name == unit).environment
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env=environment, check=False, **options)  # noqa: S603 - our own program
