"""Audit log of control actions: one JSON line per action that makes a change."""

import errno
import json
import os
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from mesh.chassis.telemetry import names
from mesh.control import Progress
from mesh.local import files

SHOWN = 100
"""Maximum number of lines returned, and minimum number kept."""
_MOST_BYTES = 1024 * 1024
READ_ONLY = frozenset({"fault list", "canary status", "status", "exits", "audit log"})
"""Read-only actions, which are not recorded."""
UNRECORDED = frozenset({"session", "request"})
"""Arguments that hold secrets and personal data."""

log = structlog.get_logger("audit")


class AuditLog:
    """The audit log of one data folder, over all runs; at most 1 MiB of the newest entries."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._unwritten: deque[str] = deque(maxlen=SHOWN)
        self._fault = ""

    def record(self, action: str, arguments: dict[str, Any], by: str, fault: str) -> None:
        """Record an action and who sent it; *fault* is why it failed, empty on success."""
        if action in READ_ONLY:
            return
        given = {
            name: value
            for name, value in arguments.items()
            if name not in UNRECORDED and value not in (None, "", False)
        }
        log.info(
            "control action failed" if fault else "control action completed",
            kind=names.KIND_SECURITY,
            action=action,
            arguments=" ".join(f"{name}={value}" for name, value in given.items()),
            by=by,
            **({"error": fault} if fault else {}),
        )
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "by": by or "somebody",
            "order": action,
            "asked": given,
            "fault": fault,
        }
        self._unwritten.append(json.dumps(line))
        self.retry()

    def retry(self) -> None:
        """Write the entries that could not be written before, oldest first."""
        if not self._unwritten:
            return
        try:
            self._write(list(self._unwritten))
        except OSError as exc:
            if str(exc) != self._fault:
                log.error("control action not recorded", message=str(exc))  # noqa: TRY400 - a sentence
            self._fault = str(exc)
        else:
            self._unwritten.clear()
            self._fault = ""

    def problems(self) -> list[str]:
        """Return one sentence if entries wait to be written."""
        if not self._unwritten:
            return []
        return [f"{self._file}: {len(self._unwritten)} entries are not written ({self._fault})."]

    def _write(self, lines: list[str]) -> None:
        if self._file.exists() and self._file.stat().st_size > _MOST_BYTES:
            kept = self._file.read_text(errors="replace").splitlines()[-SHOWN:]
            files.write(self._file, "".join(f"{line}\n" for line in kept))
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND, files.PRIVATE)
        data = "".join(f"{line}\n" for line in lines).encode()
        with os.fdopen(descriptor, "ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            # All or nothing: a full disk truncates a line, and the next one would continue it.
            try:
                if file.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(size)
                raise

    async def last(self, arguments: dict[str, Any], progress: Progress) -> list[dict[str, Any]]:
        """Return the last entries, newest first; itself an action, for the console."""
        lines = list(self._unwritten)
        if self._file.exists():
            lines = self._file.read_text(errors="replace").splitlines() + lines
        lines = lines[-SHOWN:]
        return [found for line in reversed(lines) if (found := _parsed(line))]


def _parsed(line: str) -> dict[str, Any]:
    """Return the content of a line; empty for a line truncated by a full disk."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
