"""CPU time and memory of processes, as the kernel reports them."""

import contextlib
from pathlib import Path

import psutil


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time that a process has used, in nanoseconds where the kernel counts them.

    ``/proc/PID/stat`` counts hundredths of a second, which is a tenth of a short slice.
    """
    nanoseconds = 0
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9 or sum(process.cpu_times()[:2])


def private_mb(process: psutil.Process) -> float:
    """Return the anonymous memory of a process; a page that several share counts once in all."""
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    # Not that of files: its share falls and rises with other programs on the machine.
    line = next(line for line in rollup.splitlines() if line.startswith("Pss_Anon:"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)
