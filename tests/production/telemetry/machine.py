"""
A machine whose clock, memory, disk, processors and backups are at fault, with a real node exporter.

It has namespaces of its own, so that the real one is not touched. Its disk is a file, and its
processors are the real ones. Only the free memory and the offset of the clock are made up, in files
that node exporter reads.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.observability.servers import running, wait_for
from tests.production.telemetry.site import Site

EXPORTER = "prometheus-node-exporter"
NICE = "19"
_SCRIPT = r"""
cd "$0"
mkdir disk facts
truncate --size 32M image
mkfs.ext4 -q image
mount -o loop image disk
grep -v MemAvailable /proc/meminfo >meminfo
echo "MemAvailable: 1024 kB" >>meminfo
mount --bind meminfo /proc/meminfo
dd if=/dev/zero of=disk/full bs=1M 2>/dev/null || true
cat >facts/facts.prom <<END
node_timex_offset_seconds -120
amarre_backup_last_success_timestamp_seconds $(date -d '2 days ago' +%s)
END
touch ready
exec "$1" --web.listen-address="$2" --collector.disable-defaults --collector.cpu \
  --collector.meminfo --collector.filesystem --collector.textfile \
  --collector.textfile.directory=facts
"""
"""Debian's node exporter reports the offset of the real clock, unless it is read from a file."""


def why_not() -> str:
    """Return why this machine cannot have such a machine, in one sentence; empty if it can."""
    if os.geteuid() != 0:
        return "A machine with a full disk needs a mount namespace, which only root may make."
    if not Path("/dev/loop-control").exists():
        return "A machine with a full disk needs a loop device, which this one does not have."
    for needed in (EXPORTER, "mkfs.ext4", "unshare"):
        if shutil.which(needed) is None:
            return f"A machine with a full disk needs {needed}, which is not installed here."
    return ""


@contextmanager
def neglected(site: Site) -> Iterator[None]:
    """A machine with little memory, a full disk, a wrong clock and no backup since two days."""
    folder = site.folder / "machine"
    folder.mkdir()
    # Node exporter reads the mounts of process 1.
    unshare = ("unshare", "--mount-proc", "--pid", "--fork", "--propagation", "private")
    command = ("sh", "-ec", _SCRIPT, str(folder), str(shutil.which(EXPORTER)), site.at["node"])
    log = folder / "log"
    with running(*unshare, "--kill-child", *command, log=log) as process:
        wait_for("the machine", lambda: (folder / "ready").exists() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield


@contextmanager
def busy() -> Iterator[None]:
    """Programs that use every processor, as far as nobody else needs it."""
    loops = [
        subprocess.Popen(["nice", "-n", NICE, "sh", "-c", "while :; do :; done"])
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
