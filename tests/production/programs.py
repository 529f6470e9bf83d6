"""The location of production's third-party programs: a folder, the cache, or none."""

import functools
import os
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = "AMARRE_PROGRAMS"
CACHE = ROOT.parent / "shared" / "production" / "cache"


class MissingProgramError(Exception):
    """A program is missing on this machine; the message says how to get it."""


def program(name: str, archive: str) -> Path:
    """
    Return the program *name*, from the folder in ``AMARRE_PROGRAMS`` or from *archive*.

    Args:
        name: Its file name, ``prometheus``.
        archive: The archive of the cache beside the project, ``telemetry.tar.xz``.

    Raises:
        MissingProgramError: Neither has it.
    """
    folder = os.environ.get(VARIABLE)
    found = Path(folder) if folder else _unpacked(archive)
    if found is not None and (found / name).is_file():
        return found / name
    raise MissingProgramError(
        f"{name} is missing: set {VARIABLE} to a folder that holds it, or build it from its Go "
        "module as tests/production/README.md says."
    )


@functools.cache
def _unpacked(archive: str) -> Path | None:
    """Unpack *archive* once per machine; return None if it is not in the cache."""
    packed = CACHE / archive
    if not packed.is_file():
        return None
    folder = Path(tempfile.gettempdir()) / f"amarre-programs-{os.getuid()}" / packed.name
    if not (folder / ".complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-xJf", packed, "-C", folder], check=True, timeout=600)
        (folder / ".complete").touch()
    return folder
