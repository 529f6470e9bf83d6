"""Memory of processes, as the kernel reports it."""

from pathlib import Path

import psutil


def private_mb(process: psutil.Process) -> float:
    """Return the anonymous memory of a process; a page that several share counts once in all."""
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    # Not that of files: its share falls and rises with other programs on the machine.
    line = next(line for line in rollup.splitlines() if line.startswith("Pss_Anon:"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)
