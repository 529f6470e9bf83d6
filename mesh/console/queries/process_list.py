"""Every process and proxy with what engineers on call need, from the latest scrape."""

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mesh.chassis.telemetry import names as emitted
from mesh.console.clock import rfc3339
from mesh.console.incidents.changes import us
from mesh.console.intake.envoy_admin import Proxy
from mesh.console.intake.scraper import Seen
from mesh.console.naming import workload
from mesh.console.queries import mesh_status
from mesh.console.queries.increases import increases
from mesh.console.queries.mesh_status import certificates
from mesh.contract.policy import Mesh

if TYPE_CHECKING:
    from mesh.console.context import Context

LATELY = timedelta(minutes=2)
"""The window for event loop delays and requests rejected by limits."""
Limit = dict[str, Any]


def loop_delays(db: sqlite3.Connection, *, now: int) -> dict[str, float]:
    """Return the mean event loop delay over `LATELY`, in seconds, by process."""
    found = increases(
        db,
        since=now - us(LATELY),
        until=now,
        names=[emitted.EVENT_LOOP_LAG],
    )
    return {one.process: one.total / one.events for one in found}


def listed(c: "Context", delays: Mapping[str, float], *, now: int) -> list[dict[str, Any]]:
    """
    Return every process and proxy, in the order in which they are scraped.

    Items are those of `mesh_status.process` with ``kind, eventLoopDelaySeconds, certificate,
    restarts, limits, lastDeployment``; unknown values are null or empty. Limits have ``name, used,
    limit``, fullest first; limits that rejected requests in the last two minutes come before them,
    with ``refused``.
    """
    issued: dict[str, dict[str, Any]] = {}
    for leaf in certificates(c.seen, c.certs, now=now):
        issued.setdefault(leaf["process"], leaf)
    refused: dict[str, list[Limit]] = {}
    for process, limit, count in c.evaluator.observed.refused(LATELY, now):
        refused.setdefault(process, []).append({"name": limit, "refused": count})
    return [_one(c, seen, delays, issued, refused) for seen in c.seen]


def _one(
    c: "Context",
    seen: Seen,
    delays: Mapping[str, float],
    issued: Mapping[str, Mapping[str, Any]],
    refused: Mapping[str, Sequence[Limit]],
) -> dict[str, Any]:
    process, proxy, observed = seen.target.process, seen.proxy, c.evaluator.observed
    leaf, deployment = issued.get(process), observed.deployment(workload(process))
    return {
        **mesh_status.process(seen, c.clocks),
        **(_of_proxy(seen.at, proxy) if proxy else {}),
        "kind": "proxy" if seen.target.is_envoy else "process",
        "eventLoopDelaySeconds": delays.get(process),
        "certificate": (
            {name: leaf[name] for name in ("notBefore", "notAfter", "daysLeft", "lifeLeft")}
            if leaf
            else None
        ),
        "restarts": [{"at": rfc3339(at), "why": why} for at, why in observed.restarts(process)],
        "limits": [*refused.get(process, ()), *_limits(seen, c.mesh)],
        "lastDeployment": (
            {"at": rfc3339(deployment.at), "what": deployment.what, "who": deployment.who}
            if deployment
            else None
        ),
    }


def _of_proxy(at: int, proxy: Proxy) -> dict[str, Any]:
    return {
        "memoryBytes": proxy.memory_bytes,
        "startedAt": rfc3339(at - int(proxy.uptime_seconds * 1e6)),
    }


def _limits(seen: Seen, mesh: Mesh) -> list[Limit]:
    """Return the limits of a process with their usage, fullest first."""
    gauges = seen.gauges
    calls = {one.name: one.max_concurrent_requests for one in mesh.services}
    known = [
        (
            "calls in flight",
            gauges.get(emitted.RPC_SERVER_IN_FLIGHT),
            calls.get(workload(seen.target.process)),
        ),
        (
            "requests in flight",
            gauges.get(emitted.HTTP_SERVER_IN_FLIGHT),
            gauges.get(emitted.CONCURRENCY_LIMIT),
        ),
        ("open files", gauges.get("process_open_fds"), gauges.get("process_max_fds")),
        *(
            (f"requests to {one.cluster}", one.active, one.limit)
            for one in (seen.proxy.loads if seen.proxy else ())
        ),
    ]
    found = [
        {"name": name, "used": used, "limit": limit}
        for name, used, limit in known
        if used is not None and limit
    ]
    return sorted(found, key=lambda one: one["used"] / one["limit"], reverse=True)
