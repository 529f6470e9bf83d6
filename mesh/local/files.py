"""Atomic file writes: readers see the old or the new content, never a part of it."""

import os
from collections.abc import Mapping
from pathlib import Path

PRIVATE = 0o600
"""Only the current user can read the file."""


def write(path: Path, text: str, *, mode: int = PRIVATE) -> None:
    """Write *text* to *path*; see `write_all`."""
    write_all({path: text}, mode=mode)


def write_all(texts: Mapping[Path, str], *, mode: int = PRIVATE) -> None:
    """Write each text to a new file next to its path, then rename all; create missing folders.

    Raises:
        OSError: They cannot be written; it names the file. Every path is unchanged and no
            temporary file remains.
    """
    partial = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in texts}
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _create(partial[path], text, mode)
        for path, written in partial.items():
            written.replace(path)
    except BaseException as exc:
        if isinstance(exc, OSError) and exc.filename is None:
            exc.filename = str(path)
        for one in partial.values():
            one.unlink(missing_ok=True)
        raise


def _create(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


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
