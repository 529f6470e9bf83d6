"""Half an hour under steady load: do memory and file descriptors stay level?

    python -m benchmarks.soak [--minutes 30] [--rate 20] [--port-base 20000]

Starts the whole product with its defaults (all traces sampled), and sends reads at a fixed rate.
Twice a minute somebody signs in by mail, creates a request, follows the live page and logs out.
Prints progress, stops by itself, and writes ``benchmarks/results/soak.md``: for each process the
anonymous memory and the open file descriptors in the second fifth of the run and in the last one.
The first fifth is left out: caches fill, and SQLite and Envoy take their buffers.
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import psutil

from benchmarks.gateway_cost import FOLDER
from benchmarks.harness.load import Side
from benchmarks.sides.product import product

READS = ("/api/v1/me", "/api/v1/surveys/list", "/api/v1/health/status", "/healthz")
SAMPLE_SECONDS = 15.0
VISIT_SECONDS = 30.0
FOLLOWED_SECONDS = 10.0
_ORIGIN = {"sec-fetch-site": "same-origin"}


@dataclass
class Run:
    """What was seen so far."""

    memory: dict[str, list[int]] = field(default_factory=dict)
    """Anonymous memory (PSS) of each process in KiB, one figure per sample."""
    descriptors: dict[str, list[int]] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    visits: int = 0

    def sample(self, processes: dict[str, psutil.Process]) -> None:
        """Take one sample of each process."""
        for name, process in processes.items():
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            # Not that of files: its share falls and rises with other programs on the machine.
            pss = next(line for line in rollup.splitlines() if line.startswith("Pss_Anon:"))
            self.memory.setdefault(name, []).append(int(pss.split()[1]))
            self.descriptors.setdefault(name, []).append(process.num_fds())


async def soak(side: Side, urls: dict[str, str], *, minutes: float, rate: float) -> Run:
    """Load *side* for *minutes* and return what was seen."""
    run = Run()
    ends_at = time.monotonic() + 60 * minutes
    async with httpx.AsyncClient(base_url=urls["app"], trust_env=False, timeout=30) as http:
        loads = [
            asyncio.create_task(_read(http, side.cookie, run, rate)),
            asyncio.create_task(_visit(http, urls["outbox"], run)),
        ]
        try:
            while (left := ends_at - time.monotonic()) > 0:
                await asyncio.sleep(min(SAMPLE_SECONDS, left))
                for load in loads:
                    if load.done():
                        load.result()
                run.sample(side.processes)
                total = sum(found[-1] for found in run.memory.values()) / 1024
                print(f"{left / 60:5.1f} min left, {total:.0f} MB, {dict(run.answers)}", flush=True)
        finally:
            for load in loads:
                load.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
    return run


async def _read(http: httpx.AsyncClient, cookie: str, run: Run, rate: float) -> None:
    """Send reads at a fixed rate, each whether or not those before have been answered."""
    started, sent = time.monotonic(), set[asyncio.Task[None]]()

    async def one(path: str) -> None:
        try:
            answer = await http.get(path, headers={"cookie": cookie})
            run.answers[str(answer.status_code)] += 1
        except httpx.HTTPError as exc:
            run.answers[type(exc).__name__] += 1

    for number, path in enumerate(itertools.cycle(READS)):
        await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
        task = asyncio.create_task(one(path))
        sent.add(task)
        task.add_done_callback(sent.discard)


async def _visit(http: httpx.AsyncClient, outbox: str, run: Run) -> None:
    """Go a researcher's way again and again, each time as somebody else."""
    for number in itertools.count():
        started = time.monotonic()
        address = f"soak-{number}@example.org"
        await http.post("/api/v1/auth/signup", json={"email": address}, headers=_ORIGIN)
        query = parse_qs(urlsplit(await _link(outbox, address)).query)
        body = {"userId": query["userId"][0], "secret": query["secret"][0]}
        answer = await http.post("/api/v1/auth/login", json=body, headers=_ORIGIN)
        answer.raise_for_status()
        proof = {"cookie": answer.headers["set-cookie"].partition(";")[0], **_ORIGIN}
        consent = {"consent": True}
        await http.post("/api/v1/surveys/requests", json=consent, headers=proof)
        async with http.stream("GET", "/api/v1/health/events", headers=proof) as stream:
            stream.raise_for_status()
            await asyncio.sleep(FOLLOWED_SECONDS)
        answer = await http.post("/api/v1/auth/logout", json={}, headers=proof)
        answer.raise_for_status()
        run.visits += 1
        await asyncio.sleep(max(0.0, started + VISIT_SECONDS - time.monotonic()))


async def _link(outbox: str, address: str) -> str:
    async with httpx.AsyncClient(trust_env=False) as http:
        for _ in range(300):
            for mail in (await http.get(f"{outbox}/messages")).json():
                if address in str(mail["to"]):
                    return str(mail["links"][0])
            await asyncio.sleep(0.1)
    raise SystemExit(f"No mail for {address} arrived.")


def report(run: Run, minutes: float, rate: float) -> str:
    """Return the run as a Markdown page."""
    rows = [_row(name, run.memory[name], run.descriptors[name]) for name in run.memory]
    total = [sum(found) for found in zip(*run.memory.values(), strict=True)]
    open_files = [sum(found) for found in zip(*run.descriptors.values(), strict=True)]
    answers = ", ".join(f"{count} × {what}" for what, count in sorted(run.answers.items()))
    return "\n".join(
        (
            "# Soak",
            "",
            "Written by `python -m benchmarks.soak`; the program says what is sent and compared.",
            f"Measured {datetime.now(UTC).date()}: {minutes:g} minutes, {rate:g} reads a second,",
            f"{run.visits} visits from sign-up to log-out, all traces sampled.",
            f"Answers to the reads: {answers}.",
            "",
            "| process | MB, second fifth | MB, last | growth | descriptors, second fifth | last |",
            "|---|---|---|---|---|---|",
            *rows,
            _row("all", total, open_files),
            "",
        )
    )


def _row(name: str, memory: list[int], descriptors: list[int]) -> str:
    before, after = (part / 1024 for part in _fifths(memory))
    was, now = _fifths(descriptors)
    growth = f"{after / before - 1:+.1%}"
    return f"| {name} | {before:.1f} | {after:.1f} | {growth} | {was:.0f} | {now:.0f} |"


def _fifths(samples: list[int]) -> tuple[float, float]:
    size = max(1, len(samples) // 5)
    return statistics.median(samples[size : 2 * size]), statistics.median(samples[-size:])


async def _main(minutes: float, rate: float, port_base: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        async with product(Path(name), "soak", port_base, OTEL_TRACES_SAMPLER_ARG="1.0") as side:
            run = await soak(side, side.urls, minutes=minutes, rate=rate)
    text = report(run, minutes, rate)
    (FOLDER / "results" / "soak.md").write_text(text)
    print(text)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="How long; default 30.")
    parser.add_argument("--rate", type=float, default=20.0, help="Reads per second; default 20.")
    parser.add_argument("--port-base", type=int, default=20_000)
    asked = parser.parse_args()
    if not (0.5 <= asked.minutes <= 120 and 0 < asked.rate <= 200):
        sys.exit("Choose 0.5 to 120 minutes and at most 200 reads a second.")
    asyncio.run(_main(asked.minutes, asked.rate, asked.port_base))


if __name__ == "__main__":
    main()
