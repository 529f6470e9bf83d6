"""One row per service: traffic, errors, latency, saturation, certificates."""

import sqlite3
from collections.abc import Container, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from mesh.console.intake.clock_offset import ClockOffsets
from mesh.console.intake.scraper import Seen
from mesh.console.naming import workload
from mesh.console.queries import mesh_status
from mesh.console.queries.objectives import Total, covered, totals
from mesh.console.store.call_edges import GATEWAY
from mesh.contract.policy import Mesh


def services(
    db: sqlite3.Connection,
    mesh: Mesh,
    seen: Sequence[Seen],
    certificates: Path | None,
    clocks: ClockOffsets,
    *,
    now: int,
    window: timedelta,
) -> list[dict[str, Any]]:
    """Return the gateway and every contract service over *window*."""
    seconds = int(window.total_seconds())
    by_method = totals(db, since=now // 1_000_000 - seconds, until=now // 1_000_000 + 1)
    with_data = covered(db, seconds, now // 1_000_000)
    processes = mesh_status.processes(seen, clocks)
    lives = mesh_status.certificates(seen, certificates, now=now)
    breakers = mesh_status.of_proxies(seen, "breakers")
    ejected = mesh_status.ejections(seen)
    weights = mesh_status.of_proxies(seen, "weights")
    lasting = {
        name
        for method in mesh
        if method.stays_open
        for name in (
            method.short_name,
            *(f"{GATEWAY}.{route.verb} {route.path}" for route in method.routes),
        )
    }
    limits = {service.name: service.max_concurrent_requests for service in mesh.services}
    return [
        {
            "service": name,
            **_traffic(_sum(by_method, name, lasting), with_data),
            "processes": [p for p in processes if p["workload"] == name],
            "proxiesDown": sum(
                one.target.is_envoy and bool(one.fault) and workload(one.target.process) == name
                for one in seen
            ),
            "inFlight": _in_flight(name, processes),
            "saturation": _saturation(name, processes, limits.get(name)),
            "certificateDays": min(
                (life["daysLeft"] for life in lives if life["workload"] == name), default=None
            ),
            "certificateLife": min(
                (life["lifeLeft"] for life in lives if life["workload"] == name), default=None
            ),
            "openBreakers": sum(b["cluster"] == name for b in breakers),
            "ejectedHosts": sum(h["cluster"] == name for h in ejected),
            "canaryWeight": max(
                (w["clusters"].get(f"{name}_canary", 0) for w in weights), default=0
            ),
            "canaryVerdict": "",
            "clockOffsetSeconds": _largest(
                p["clockOffsetSeconds"] for p in processes if p["workload"] == name
            ),
        }
        for name in (GATEWAY, *limits)
    ]


def _largest(offsets: Iterable[float | None]) -> float | None:
    return max((one for one in offsets if one is not None), key=abs, default=None)


def _sum(by_method: dict[str, Total], service: str, lasting: Container[str]) -> Total:
    """
    Return the sum over a service's methods without the *lasting* ones.

    Callers count a stream when it ends, and each failed attempt to open one while the service
    starts: an error ratio of those says nothing about open streams.
    """
    whole = Total()
    for name, total in by_method.items():
        if name.partition(".")[0] == service and name not in lasting:
            whole.calls += total.calls
            whole.failed += total.failed
            for bound, count in total.buckets.items():
                whole.buckets[bound] += count
    return whole


def _traffic(total: Total, seconds: int) -> dict[str, Any]:
    return {
        "calls": total.calls,
        "few": total.few,
        "rate": total.calls / seconds,
        "errors": total.failed,
        "errorRatio": total.error_ratio,
        **total.quantiles(),
    }


def _saturation(name: str, processes: Sequence[dict[str, Any]], limit: int | None) -> float | None:
    """Return the calls in flight at the busiest replica as a share of its limit."""
    known = _known_flights(name, processes)
    return max(known) / limit if known and limit else None


def _in_flight(name: str, processes: Sequence[dict[str, Any]]) -> float | None:
    """Return the calls in flight at all replicas; None if unknown."""
    known = _known_flights(name, processes)
    return sum(known) if known else None


def _known_flights(name: str, processes: Sequence[dict[str, Any]]) -> list[float]:
    flights = [p["inFlight"] for p in processes if p["workload"] == name]
    return [flight for flight in flights if flight is not None]
