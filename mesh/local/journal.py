"""Who ordered what of a mesh, and when: a line of JSON for every order that changes something."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from mesh.chassis.telemetry import names
from mesh.orders import Tell

SHOWN = 100
"""The most lines that are shown, and the least that are kept."""
_MOST_BYTES = 1024 * 1024
LOOKS = frozenset({"fault list", "canary status", "status", "journal"})
"""Orders that change nothing."""

log = structlog.get_logger("journal")


class Journal:
    """The orders of one data folder, over all runs; the oldest go when there are many."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def record(self, order: str, asked: dict[str, Any], by: str, fault: str) -> None:
        """Keep an order that *by* gave; *fault* says why it was not carried out."""
        if order in LOOKS:
            return
        given = {name: value for name, value in asked.items() if value not in (None, "", False)}
        log.info(
            "order refused" if fault else "order given",
            kind=names.KIND_SECURITY,
            order=order,
            asked=" ".join(f"{name}={value}" for name, value in given.items()),
            by=by,
            fault=fault or None,
        )
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "by": by or "somebody",
            "order": order,
            "asked": given,
            "fault": fault,
        }
        try:
            self._write([json.dumps(line)])
        except OSError as exc:
            log.error("order not recorded", message=str(exc))  # noqa: TRY400 - a sentence

    def _write(self, lines: list[str]) -> None:
        if self._file.exists() and self._file.stat().st_size > _MOST_BYTES:
            kept = self._file.read_text().splitlines()[-SHOWN:]
            partial = self._file.with_suffix(".part")
            with os.fdopen(_opened(partial, os.O_TRUNC), "w") as file:
                file.writelines(f"{line}\n" for line in kept)
            partial.replace(self._file)
        with os.fdopen(_opened(self._file, os.O_APPEND), "a") as file:
            file.writelines(f"{line}\n" for line in lines)

    async def last(self, asked: dict[str, Any], tell: Tell) -> list[dict[str, Any]]:
        """Return the last orders, newest first; an order itself, so that the console can ask."""
        if not self._file.exists():
            return []
        lines = self._file.read_text(errors="replace").splitlines()[-SHOWN:]
        return [found for line in reversed(lines) if (found := _parsed(line))]


def _opened(path: Path, flag: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600)


def _parsed(line: str) -> dict[str, Any]:
    """Return a line's content; nothing for one that was cut off by a full disk."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
