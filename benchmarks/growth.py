"""How the cost of a request grows with cores, with requests per second and with records."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from benchmarks.harness.load import OUTSIDE, Side, Slice, get, measure
from benchmarks.harness.paths import LIST
from benchmarks.harness.population import SESSIONS, Population, count_records, import_requests
from benchmarks.harness.summary import milliseconds
from benchmarks.sides import bare

SHARES = (0.25, 0.5, 0.75)
"""Offered rates, as shares of the highest one."""
RECORDS = (2_500, 5_000, 10_000)
"""Records in REDCap; the lists that are read keep their length."""


async def grow(side: Side, people: Population, *, seconds: float, at_once: int) -> dict[str, Any]:
    """Return rows for each kind of growth."""
    me = get("me", bare.PATH, people.cookies[:1])
    cores = []
    for count in range(1, (os.cpu_count() or 1) + 1):
        with _limited(side, count):
            await measure(side, me, seconds=0.5, at_once=at_once)
            found = await measure(side, me, seconds=seconds, at_once=at_once)
            cores.append({"cores": count, **_row(found)})
    highest = cores[-1]["requests_per_second"]
    rates = []
    for share in SHARES:
        offered = max(1.0, share * highest)
        found = await measure(side, me, seconds=seconds, at_once=at_once, rate=offered)
        rates.append({"offered": round(offered), **_row(found)})
    records = await _grow_records(side, people, seconds=seconds)
    return {"side": side.name, "cores": cores, "rates": rates, "records": records}


async def _grow_records(side: Side, people: Population, *, seconds: float) -> list[dict[str, Any]]:
    """Return rows for numbers of records in REDCap; the sandbox's own cost has its own column.

    One request after the other, since the sandbox searches all records for each.
    """
    cold = get("list", LIST, people.cold)
    rows = []
    for count in RECORDS:
        # Users without sessions, so that no list changes.
        held = count_records(side)
        import_requests(side, {SESSIONS + held: count - held})
        found = await measure(side, cold, seconds=seconds, at_once=1)
        outside = sum(found.cpu.get(name, 0) for name in OUTSIDE)
        rows.append({"records": count, **_row(found), "sandbox_us": round(outside)})
    return rows


def _row(found: Slice) -> dict[str, Any]:
    seconds = sorted(found.seconds)
    return {
        "requests_per_second": round(found.rate),
        "cpu_us": round(found.total),
        "p50_ms": milliseconds(seconds, 0.5),
        "p99_ms": milliseconds(seconds, 0.99),
        "refused": found.refused,
    }


@contextlib.contextmanager
def _limited(side: Side, cores: int) -> Iterator[None]:
    """Run all processes of *side* on the first *cores* cores."""
    whole = os.sched_getaffinity(0)
    some = set(sorted(whole)[:cores])
    _pin(side, some)
    try:
        yield
    finally:
        _pin(side, whole)


def _pin(side: Side, cores: set[int]) -> None:
    for process in side.processes.values():
        for thread in process.threads():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, cores)
