"""A small runner with a fork server as a separate program, since pytest has threads.

Starts this module once more as ``report`` for each of its arguments, and prints what each process
wrote and how it ended, one JSON object a line.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mesh.local.processes import fork_server
from mesh.local.processes.fork_server import ForkServer, ForkServerError


async def run(forks: ForkServer, arguments: Sequence[str]) -> None:
    """Start a process for each of *arguments* concurrently."""
    for line in await asyncio.gather(*(one(forks, argument) for argument in arguments)):
        print(json.dumps(line), flush=True)


async def one(forks: ForkServer, argument: str) -> dict[str, object]:
    """Start a process and return its outcome."""
    reader, writer = os.pipe()
    if argument == "without-server":
        os.kill(server(), signal.SIGKILL)
    if argument == "with-hung-server":
        fork_server.ANSWER_SECONDS = 0.5
        os.kill(server(), signal.SIGSTOP)
    command = [sys.executable, "-m", "tests.mesh.local.processes.forking", "report", argument]
    try:
        process = await forks.start(command, {"ONLY": "this", "TZ": "Asia/Tokyo"}, writer)
    except ForkServerError:
        return {"runs": forks.runs}
    os.close(writer)
    if argument == "killed":
        os.kill(process.pid, signal.SIGKILL)
    if argument == "orphan":
        print(process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    output = await asyncio.to_thread(os.fdopen(reader).read)
    return {"pid": process.pid, "status": await process.wait(), "output": output}


def server() -> int:
    """Return the process id of the fork server, the only child so far."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    return int(children.read_text().split()[0])


def report(argument: str) -> None:
    """Print the state of a process, then exit as *argument* says."""
    if argument in {"killed", "orphan"}:  # Without output, which would end it when nobody reads.
        time.sleep(60)
    seen = {
        "arguments": sys.argv[1:],
        "environment": dict(os.environ),
        "imported": "colorsys" in sys.modules,
        "parent": os.getppid(),
        "leads_session": os.getsid(0) == os.getpid(),
        "descriptors": [n for n in range(100) if Path(f"/proc/self/fd/{n}").exists()],
        "stdin": os.read(0, 1).decode(),
        "title": Path("/proc/self/cmdline").read_text().rstrip("\0"),
        "zone": time.tzname[0],
    }
    print(json.dumps(seen), flush=True)
    match argument:
        case "fails":
            raise OSError("no such luck")
        case "exits":
            sys.exit(3)


if __name__ == "__main__":
    if sys.argv[1] == "report":
        report(sys.argv[2])
    else:
        begun = ForkServer.begin(["colorsys"], {"FROM": "the runner"})
        print(os.getpid(), flush=True)
        asyncio.run(run(begun, sys.argv[1:]))
        begun.stop()
