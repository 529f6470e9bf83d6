"""Lock of a data folder, so that only one mesh runs from it."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO


class AlreadyRunningError(Exception):
    """A mesh runs from this data folder already."""


class FolderLock:
    """An exclusive lock on a file of the data folder, held until `close`."""

    def __init__(self, path: Path) -> None:
        """Prepare to lock the file *path*, which is created if necessary."""
        self._path = path
        self._file: IO[str] | None = None
        self.problem = ""
        """Why the lock was lost; empty while it is held."""

    def take(self) -> None:
        """Lock the file.

        Raises:
            AlreadyRunningError: Another process has locked it.
            OSError: It cannot be created.
        """
        file = self._path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            file.close()
            raise AlreadyRunningError(
                f"A mesh runs from {self._path.parent} already. Stop it with Ctrl-C where "
                "it runs, or start another one with --data DIR --port-base PORT."
            ) from exc
        self.close()
        self._file = file

    def keep(self) -> bool:
        """Return whether the lock is held; if its file was removed, take it again first."""
        if self._is_in_place():
            return True
        try:
            self.take()
        except AlreadyRunningError:
            self.problem = (
                f"{self._path} was removed, and another mesh was started in the same folder. "
                "Stop both and start one."
            )
        except OSError as exc:
            self.problem = f"{self._path} was removed and cannot be created again: {exc}"
        else:
            self.problem = ""
        return not self.problem

    def close(self) -> None:
        """Unlock the file."""
        if self._file is not None:
            self._file.close()

    def _is_in_place(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return self._file is not None and os.path.samestat(
                os.fstat(self._file.fileno()), self._path.stat()
            )
        return False
