"""The service graph: declared and observed calls between workloads."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mesh import topology
from mesh.console.clock import rfc3339
from mesh.console.queries.objectives import covered
from mesh.console.store.call_edges import GATEWAY, OUTSIDE
from mesh.contract.policy import ANY_CALLER, Mesh

Key = tuple[str, str, str]
"""Source, target and rpc; the rpc is empty for calls outside the contracts."""


@dataclass
class Seen:
    """The calls of one edge within the window."""

    calls: int = 0
    counted: int = 0
    errors: int = 0
    refused: int = 0
    last: int = 0


def edges(db: sqlite3.Connection, mesh: Mesh, *, now: int, window: timedelta) -> list[Any]:
    """
    Return every declared or observed edge, sorted by source and target.

    Rates come from counters where available, since traces are sampled; errors and denials come
    from traces. Calls are counted by the minute: the range begins with a whole one.
    """
    ends = now // 1_000_000
    first = (ends - int(window.total_seconds())) // 60
    seconds = covered(db, ends - first * 60, ends)
    seen = observed(db, since=first - 1, until=(ends - 1) // 60)
    ever, refused = _ever(db), _ever_refused(db)
    declared = dict(_declared(mesh))
    lasting = {method.short_name for method in mesh if method.stays_open}
    found = []
    for key in sorted(declared.keys() | seen.keys() | ever.keys()):
        source, target, rpc = key
        one = seen.get(key, Seen())
        calls = max(one.calls, one.counted)
        allowed = key in declared or (ANY_CALLER, target, rpc) in declared
        found.append(
            {
                "from": source,
                "to": target,
                "method": rpc,
                "declared": allowed,
                "observed": bool(calls),
                "everObserved": key in ever,
                "staysOpen": rpc in lasting,
                "calls": calls,
                "rate": calls / seconds,
                "errors": one.errors,
                "refused": one.refused,
                "errorRatio": one.errors / one.calls if one.calls else 0.0,
                "policy": _policy(mesh, rpc) if not allowed or one.refused else "",
                "source": declared.get(key, ""),
                "refusedTotal": refused.get(key, (0, 0))[0],
                "lastRefused": rfc3339(refused[key][1] * 60_000_000) if key in refused else "",
                "lastSeen": rfc3339(ever[key] * 60_000_000) if key in ever else "",
            }
        )
    return [edge for edge in found if edge["from"] != ANY_CALLER]


def observed(db: sqlite3.Connection, *, since: int, until: int) -> dict[Key, Seen]:
    """Return the calls of each edge after the minute *since* up to and including *until*."""
    found: dict[Key, Seen] = {}
    rows = db.execute(
        "SELECT source, target, rpc, counted, sum(calls), sum(errors), sum(refused), max(minute)"
        " FROM edges WHERE minute > ? AND minute <= ? GROUP BY source, target, rpc, counted",
        (since, until),
    )
    for source, target, rpc, counted, calls, errors, refused, last in rows:
        one = found.setdefault((source, target, rpc), Seen())
        if counted:
            one.counted = calls
        else:
            one.calls, one.errors, one.refused = calls, errors, refused
        one.last = max(one.last, last)
    return found


def _ever(db: sqlite3.Connection) -> dict[Key, int]:
    rows = db.execute(
        "SELECT source, target, rpc, max(minute) FROM edges GROUP BY source, target, rpc"
    )
    return {(source, target, rpc): minute for source, target, rpc, minute in rows}


def _ever_refused(db: sqlite3.Connection) -> dict[Key, tuple[int, int]]:
    """Return how many calls of each edge were denied, and in which minute last."""
    rows = db.execute(
        "SELECT source, target, rpc, sum(refused), max(minute) FROM edges WHERE refused > 0"
        " GROUP BY source, target, rpc"
    )
    return {(source, target, rpc): (count, at) for source, target, rpc, count, at in rows}


def _declared(mesh: Mesh) -> Iterator[tuple[Key, str]]:
    """Yield each declared edge and the place of its declaration."""
    yield (OUTSIDE, GATEWAY, ""), "mesh/topology.py"
    for method in mesh:
        for caller in method.callers:
            yield (caller, method.service, method.short_name), method.source
    backends = {p.name for p in topology.PROCESSES if p.kind is topology.Kind.BACKEND}
    for process in topology.PROCESSES:
        for need in process.needs:
            if need in backends:
                yield (process.name, need, ""), "mesh/topology.py"


def _policy(mesh: Mesh, rpc: str) -> str:
    """Return the policy option that governs *rpc*; empty if there is none."""
    return next((method.source for method in mesh if method.short_name == rpc), "")
