"""Goodput under overload: responses in time at three times the peak, and rejected requests.

    python -m benchmarks.overload [--direct] [--times 3] [--seconds 8] [--connections 200]

Runs the whole product, measures its peak with wrk over 16 connections, then offers a multiple of
it with h2load at a fixed rate (both are Debian packages: wrk, nghttp2-client). Meanwhile another
client requests ``/healthz`` and signs out. Prints a Markdown row. The clients and the product share
the machine, so that rejected connections leave less CPU time for served ones.
"""

import argparse
import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.harness.load import Side
from benchmarks.sides import bare
from benchmarks.sides.product import product

PEAK_SECONDS = 4
PEAK_CONNECTIONS = 16
GOOD_SECONDS = 1.0
"""Goodput counts responses within this time."""


@dataclass(frozen=True)
class Answer:
    """The status of a response and how long it took, in seconds."""

    status: int
    seconds: float


def peak(side: Side) -> float:
    """Return the highest rate of a closed loop, in requests per second."""
    command = [
        *("wrk", "-t1", f"-c{PEAK_CONNECTIONS}", f"-d{PEAK_SECONDS}s"),
        *("-H", f"cookie: {side.cookie}", f"http://127.0.0.1:{side.port}{bare.PATH}"),
    ]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(printed.rpartition("Requests/sec:")[2].split()[0])


def offer(side: Side, rate: float, *, seconds: int, connections: int, log: Path) -> list[Answer]:
    """Send *rate* requests per second, regardless of responses; return the responses."""
    log.unlink(missing_ok=True)
    command = [
        *("h2load", "--h1", "-t1", f"-c{connections}", f"--rps={rate / connections:.3f}"),
        *(f"--duration={seconds}", "--warm-up-time=0", f"--log-file={log}"),
        *("-H", f"cookie: {side.cookie}", f"http://127.0.0.1:{side.port}{bare.PATH}"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    rows = (line.split() for line in log.read_text().splitlines())
    return [Answer(int(status), int(micros) / 1e6) for _, status, micros in rows]


class Others(threading.Thread):
    """A client that requests health and signs out, one request after another."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self._ended = threading.Event()
        self.found: dict[str, list[Answer]] = {"/healthz": [], "/api/v1/auth/logout": []}

    def run(self) -> None:
        """Send requests until `end` is called."""
        ours = {"sec-fetch-site": "same-origin"}
        base = f"http://127.0.0.1:{self._port}"
        with httpx.Client(base_url=base, trust_env=False, timeout=20, headers=ours) as http:
            while not self._ended.wait(0.2):
                for path, answers in self.found.items():
                    started = time.monotonic()
                    status = http.request("POST" if "logout" in path else "GET", path).status_code
                    answers.append(Answer(status, time.monotonic() - started))

    def end(self) -> None:
        """Stop sending requests."""
        self._ended.set()
        self.join()


def milliseconds(answers: Sequence[Answer], *quantiles: float) -> str:
    """Return quantiles of the durations as text."""
    if len(answers) < 2:
        return "–"
    cuts = statistics.quantiles((one.seconds * 1000 for one in answers), n=100)
    return " / ".join(f"{cuts[round(one * 100) - 1]:.0f}" for one in quantiles)


async def measure(asked: argparse.Namespace) -> str:
    """Return the row."""
    name, options = ("direct", ("--direct",)) if asked.direct else ("sidecars", ())
    with tempfile.TemporaryDirectory() as folder:
        async with product(Path(folder), name, asked.port_base, *options) as side:
            best = await asyncio.to_thread(peak, side)
            others = Others(side.port)
            others.start()
            answers = await asyncio.to_thread(
                offer,
                side,
                best * asked.times,
                seconds=asked.seconds,
                connections=asked.connections,
                log=Path(folder) / "h2load.log",
            )
            others.end()
            await asyncio.sleep(1)
            after = await asyncio.to_thread(peak, side)
    served = [one for one in answers if one.status == 200]
    refused = [one for one in answers if one.status in {429, 503}]
    good = sum(one.seconds <= GOOD_SECONDS for one in served) / asked.seconds
    odd = Counter(one.status for one in answers) - Counter({200: len(served), 503: len(refused)})
    cells = [
        name,
        str(asked.connections),
        f"{best:.0f}",
        f"{len(answers) / asked.seconds:.0f}",
        f"{good / best:.2f}",
        milliseconds(served, 0.5, 0.99),
        milliseconds(refused, 0.5, 0.99),
        *(
            f"{sum(one.status < 500 for one in found)} of {len(found)},"
            f" {milliseconds(found, 0.5, 0.99)}"
            for found in others.found.values()
        ),
        f"{after / best:.2f}",
        str(dict(odd) or "none"),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--direct", action="store_true")
    parser.add_argument("--times", type=float, default=3)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--port-base", type=int, default=7000)
    asked = parser.parse_args()
    for program, package in {"wrk": "wrk", "h2load": "nghttp2-client"}.items():
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing. Run: apt-get install {package}")
    columns = (
        *("side", "connections", "peak req/s", "answered/s", "goodput ÷ peak", "200: p50/p99 ms"),
        *("refused: p50/p99 ms", "/healthz", "log-out", "peak afterwards", "other statuses"),
    )
    row = asyncio.run(measure(asked))
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n{row}")


if __name__ == "__main__":
    main()
