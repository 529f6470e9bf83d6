"""Atomic file writes: readers see the old or the new content, never a part of it."""

import os
from pathlib import Path

PRIVATE = 0o600
"""Only the current user can read the file."""


def write(path: Path, text: str, *, mode: int = PRIVATE) -> None:
    """Write *text* to a new file next to *path*, then rename it; missing folders are created.

    Raises:
        OSError: It cannot be written. *path* is unchanged and no temporary file remains.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_changed(path: Path, text: str) -> None:
    """Write *text* to *path* unless it already has this content.

    Raises:
        OSError: It cannot be written.
    """
    try:
        if path.read_text() == text:
            return
    except (OSError, ValueError):
        pass
    write(path, text)
