"""Many sessions in rotation compared with one session, and the memory that they take.

The gateway and the services verify a session again before its user token expires after a minute,
so that each measurement lasts for that long: it includes one verification of every session.
"""

import statistics
import time
from typing import Any

from benchmarks.harness.load import Side, Slice, Workload, get, measure
from benchmarks.harness.population import SESSIONS, Population
from benchmarks.harness.processes import private_mb
from benchmarks.sides import bare

COUNTS = (1, SESSIONS // 10, SESSIONS)
_SHARES = (0.1, 0.2, 0.7)
"""Parts of a round for each of `COUNTS`: many sessions need a rate that repeats them."""
_HOLDERS = ("gateway", "auth")
_WARM_SECONDS = 60


async def compare(
    side: Side, people: Population, *, lasting: float, round_seconds: float, at_once: int
) -> dict[str, Any]:
    """Return the cost for each number of sessions."""
    sent = {count: get("me", bare.PATH, people.cookies[:count]) for count in COUNTS}
    memory = {}
    for count in COUNTS:
        await _send_all(side, sent[count], count, at_once)
        memory[count] = round(sum(private_mb(side.processes[name]) for name in _HOLDERS), 1)
    found: dict[int, list[Slice]] = {count: [] for count in COUNTS}
    until = time.monotonic() + lasting
    while time.monotonic() < until:
        for count, share in zip(COUNTS, _SHARES, strict=True):
            one = await measure(side, sent[count], seconds=share * round_seconds, at_once=at_once)
            found[count].append(one)
    rows = [_row(count, found[count], found[1]) | {"mb": memory[count]} for count in COUNTS]
    return {"side": side.name, "rows": rows}


async def _send_all(side: Side, workload: Workload, count: int, at_once: int) -> None:
    """Send at least *count* requests, on a very slow machine for a minute only."""
    sent, until = 0, time.monotonic() + _WARM_SECONDS
    while sent < count and time.monotonic() < until:
        sent += len((await measure(side, workload, seconds=1, at_once=at_once)).seconds)


def _row(count: int, slices: list[Slice], one: list[Slice]) -> dict[str, Any]:
    # The mean, not the median: verifications come in waves, a minute apart.
    cpu, reference = mean_cpu(slices), mean_cpu(one)
    return {
        "sessions": count,
        "cpu_us": round(cpu),
        "one_to_cpu": round(reference / cpu, 2),
        "requests_per_second": round(statistics.fmean(each.rate for each in slices)),
        "refused": sum(each.refused for each in slices),
    }


def mean_cpu(slices: list[Slice]) -> float:
    """Return the CPU microseconds of one request, over all requests of *slices*."""
    requests = sum(len(one.seconds) for one in slices)
    return sum(one.total * len(one.seconds) for one in slices) / requests
