"""Log files of processes: read from pipes, rotated by size, never blocking a process.

Each process writes to a pipe, and one thread copies the output to its log file. So a full disk or a
missing folder loses lines, which are counted, but never blocks the process.
"""

import contextlib
import errno
import fcntl
import os
import selectors
import threading
from collections import deque
from pathlib import Path
from typing import BinaryIO

from mesh.chassis import background

MOST_BYTES = 10 * 1024 * 1024
"""The size at which a log file is renamed to ``.log.1`` and a new one started."""
_PIPE_BYTES = 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_TAIL_BYTES = 16 * 1024
_END_SECONDS = 2.0


class LogFile:
    """One log file; except for reading, only the thread of `LogFiles` calls its methods."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self.lost_lines = 0
        """Lines that could not be written since the start."""
        self.reason = ""
        """Why the last line was lost; empty if writing works."""
        self._most = most_bytes
        self._file: BinaryIO | None = None
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0

    def append(self, data: bytes) -> None:
        """Write *data*; lines that cannot be written are counted as lost."""
        self._remember(data)
        try:
            file = self._opened()
            if file.tell() + len(data) > self._most:
                file = self._cut(file)
            if self.reason:
                _write_all(file, f"\n({self.lost_lines} lines lost: {self.reason})\n".encode())
            _write_all(file, data)
            self.reason = ""
        except OSError as exc:
            self.lost_lines += data.count(b"\n") or 1
            self.reason = exc.strerror or str(exc)

    def begin(self) -> None:
        """Keep the log of the previous run as ``.log.1``."""
        with contextlib.suppress(OSError):
            self.path.replace(self.path.with_suffix(".log.1"))

    def tail(self) -> str:
        """Return the end of the output, even if it could not be written."""
        return b"".join(list(self._tail)).decode(errors="replace")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def _remember(self, data: bytes) -> None:
        self._tail.append(data[-_TAIL_BYTES:])
        self._tail_bytes += len(self._tail[-1])
        while len(self._tail) > 1 and self._tail_bytes - len(self._tail[0]) >= _TAIL_BYTES:
            self._tail_bytes -= len(self._tail.popleft())

    def _opened(self) -> BinaryIO:
        """Return the open file; reopen it if it was removed or moved."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(self._file.fileno()), self.path.stat()):
                    return self._file
            self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._file = os.fdopen(descriptor, "ab", buffering=0)
        return self._file

    def _cut(self, file: BinaryIO) -> BinaryIO:
        file.close()
        self._file = None
        self.path.replace(self.path.with_suffix(".log.1"))
        return self._opened()


def _write_all(file: BinaryIO, data: bytes) -> None:
    if file.write(data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Pipe:
    """The write end of a pipe to a log file."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.ended = threading.Event()
        """Set when every writer has closed its end and all lines are in the file."""

    def close(self) -> None:
        """Close this copy; the process that inherited it keeps its own."""
        os.close(self.descriptor)


class LogFiles:
    """The log files of a mesh, and the thread that writes them."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._files: dict[Path, LogFile] = {}
        self._selector = selectors.DefaultSelector()
        self._closing = threading.Event()
        wake_reader, self._wake = os.pipe()
        self._selector.register(wake_reader, selectors.EVENT_READ, None)
        self._thread = background.thread("log files", self._run)
        self._thread.start()

    def file(self, path: Path) -> LogFile:
        """Return the log file at *path*."""
        return self._files.setdefault(path, LogFile(path, self._most))

    def pipe(self, path: Path) -> Pipe:
        """Return a new pipe to the log file at *path*.

        Raises:
            OSError: This process has no file descriptors left.
        """
        reader, writer = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        found = Pipe(writer)
        self._selector.register(reader, selectors.EVENT_READ, (found, self.file(path)))
        os.write(self._wake, b"+")
        return found

    def problems(self) -> list[str]:
        """Return one sentence for each log file that has lost lines."""
        return [
            f"{file.path}: {file.lost_lines} log lines were lost"
            + (f" ({file.reason})." if file.reason else "; writing works again.")
            for file in self._files.values()
            if file.lost_lines
        ]

    def close(self) -> None:
        """Write the remaining output of ended processes, then stop the thread."""
        self._closing.set()
        os.write(self._wake, b"-")
        self._thread.join(_END_SECONDS)
        for file in self._files.values():
            file.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                data = os.read(key.fd, _CHUNK_BYTES)
                if key.data is None:
                    continue
                pipe, file = key.data
                if data:
                    file.append(data)
                else:
                    self._selector.unregister(key.fd)
                    os.close(key.fd)
                    pipe.ended.set()
            if self._closing.is_set() and len(self._selector.get_map()) == 1:
                return
