"""Cost of each path of the product, compared with the bare sides in the same rounds."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from benchmarks.harness.load import Side, Slice, Workload, get, measure, measure_idle, post
from benchmarks.harness.population import Population
from benchmarks.harness.summary import row
from benchmarks.sides import bare

LIST = "/api/v1/surveys/list"
CREATE = "/api/v1/surveys/requests"
STATUS = "/api/v1/health/status"


def workloads(people: Population) -> list[Workload]:
    """Return what is sent to the product, in this order."""
    return [
        get("me", bare.PATH, people.cookies[:1]),
        get("status, no session", STATUS),
        *(
            get(f"list of {count}, cached", LIST, [cookie])
            for count, cookie in people.lists.items()
        ),
        get("list of 10, nothing cached", LIST, people.cold, slices=3),
        post("create, new session", CREATE, '{"consent":true}', people.creators, slices=3),
    ]


async def compare(
    plain: Sequence[Side],
    products: Sequence[tuple[Side, Population]],
    *,
    rounds: int,
    seconds: float,
    at_once: int,
) -> list[dict[str, Any]]:
    """Measure all sides in turn; the first of *plain* is the reference of all others."""
    plan = [(side, get("me", bare.PATH)) for side in plain]
    sent = [(side, workloads(people)) for side, people in products]
    plan += [(side, kinds[at]) for at in range(len(sent[0][1])) for side, kinds in sent]
    for side, workload in plan:  # Warm up connections, caches and compiled rules.
        await measure(side, workload, seconds=1, at_once=at_once)
    await asyncio.sleep(1)
    await measure_idle([*plain, *(side for side, _ in products)])
    found: dict[tuple[str, str], list[Slice]] = defaultdict(list)
    for _ in range(rounds):
        for side, workload in plan:
            length = seconds * workload.slices
            one = await measure(side, workload, seconds=length, at_once=at_once)
            found[side.name, workload.name].append(one)
    reference = found[plain[0].name, "me"]
    return [
        {"side": side, "request": request, **row(slices, reference)}
        for (side, request), slices in found.items()
    ]
