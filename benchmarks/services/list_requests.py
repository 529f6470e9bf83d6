"""
Cost of listing requests: REDCap calls, time and rate, compared with the old system's pattern.

    python -m benchmarks.services.list_requests [--latency-ms 20] [--seconds 5]

Everything runs on this machine: the sandbox as a process, the service in this one, called over
mTLS as the gateway calls it. The old system is replayed by what it asked of REDCap for one list:
two exports, and two links for each request, eight at a time as its pool did. Its Appwrite calls
and its own HTTP round trips are left out, so the comparison favours it.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import httpx

from benchmarks.harness.population import request_record
from mesh.chassis import telemetry
from mesh.local.pki.certificate_authority import CertificateAuthority, issue_all
from survey_svc.study import profile as profiles
from tests.survey_svc.sandbox import Sandbox
from tests.survey_svc.world import World, running

SIZES = (1, 10, 50, 500)
RATED = (1, 10, 50)
CONCURRENCY = 8
SAMPLES = 15
CACHE_SECONDS = 2.1
"""A little longer than the service caches REDCap's responses."""

Once = Callable[[], Awaitable[object]]


def seed(sandbox: Sandbox, size: int) -> str:
    """Store *size* requests of one user, half of them finished; returns the user."""
    user = f"bench{size}"
    sandbox.save(*(request_record(user, at, finished=bool(at % 2)) for at in range(size)))
    return user


async def old_list(client: httpx.AsyncClient, sandbox: Sandbox, user: str) -> int:
    """Make the REDCap calls of the old system for one list; return their number."""
    calls = 0
    pool = asyncio.Semaphore(8)

    async def ask(**params: str) -> httpx.Response:
        nonlocal calls
        calls += 1
        async with pool:
            body = {"token": sandbox.token, "format": "json", **params}
            return await client.post(sandbox.api_url, data=body)

    logic = {"type": "flat", "filterLogic": f'[userid] = "{user}"'}
    rows = (
        await ask(content="record", fields="record_id,created_at,form_complete", **logic)
    ).json()
    await ask(content="record", rawOrLabel="label", fields="record_id,invite_nom", **logic)
    links = (("form", "validation_finale"),) * len(rows)
    await asyncio.gather(
        *(
            ask(content="surveyLink", record=row["record_id"], instrument=instrument)
            for row, instruments in zip(rows, links, strict=True)
            for instrument in instruments
        )
    )
    return calls


async def p50_ms(once: Once, *, rest: float, samples: int = SAMPLES) -> float:
    """Return the median time of *once* in milliseconds, pausing between calls."""
    times = []
    for _ in range(samples):
        await asyncio.sleep(rest)
        started = time.perf_counter()
        await once()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


async def rate(once: Once, seconds: float) -> float:
    """Return how often *once* completes per second when `CONCURRENCY` run at a time."""
    done = 0
    ends_at = time.perf_counter() + seconds

    async def run() -> None:
        nonlocal done
        while time.perf_counter() < ends_at:
            await once()
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(run() for _ in range(CONCURRENCY)))
    return done / (time.perf_counter() - started)


async def counted(sandbox: Sandbox, once: Once) -> str:
    """Return the number of REDCap calls of *once*, in total and by content."""
    sandbox.clear_calls()
    await once()
    calls = sandbox.calls()
    each = ", ".join(f"{content} {count}" for content, count in sorted(calls.items()))
    return f"{sum(calls.values())} ({each})" if calls else "0"


async def measure(world: World, sandbox: Sandbox, latency_ms: int, seconds: float) -> None:
    """Print the tables."""
    users = {size: seed(sandbox, size) for size in SIZES}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        print("REDCap calls of one list\n")
        print("| N | first ever | first after 2 s | within 2 s | old system |")
        print("| --- | --- | --- | --- | --- |")
        for size, user in users.items():
            once = partial(world.list, user)
            first = await counted(sandbox, once)
            await asyncio.sleep(CACHE_SECONDS)
            later, within = await counted(sandbox, once), await counted(sandbox, once)
            old = await old_list(client, sandbox, user)
            print(f"| {size} | {first} | {later} | {within} | {old} |")
        sandbox.fault(latency_ms=latency_ms)
        print(f"\nTime and rate with {latency_ms} ms REDCap latency, concurrency {CONCURRENCY}\n")
        print("| N | p50 ms, REDCap asked | p50 ms, kept | lists/s | old p50 ms | old lists/s |")
        print("| --- | --- | --- | --- | --- | --- |")
        for size in RATED:
            user = users[size]

            ours = partial(world.list, user)
            theirs = partial(old_list, client, sandbox, user)
            asked = await p50_ms(ours, rest=CACHE_SECONDS, samples=7)
            kept = await p50_ms(ours, rest=0)
            before = await p50_ms(theirs, rest=0, samples=7)
            print(
                f"| {size} | {asked:.1f} | {kept:.1f} | {await rate(ours, seconds):.0f} "
                f"| {before:.0f} | {await rate(theirs, seconds):.1f} |"
            )


async def main() -> None:
    """Start the processes and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency-ms", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3)
    given = parser.parse_args()
    telemetry.configure_logs("survey", "benchmark", "ERROR")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        issue_all(CertificateAuthority.create(), folder / "svids")
        store = f"sqlite+aiosqlite:///{folder / 'survey.sqlite'}"
        with Sandbox(folder) as sandbox:
            async with running(sandbox, profiles.load(), folder / "svids", store) as world:
                await measure(world, sandbox, given.latency_ms, given.seconds)


if __name__ == "__main__":
    asyncio.run(main())
