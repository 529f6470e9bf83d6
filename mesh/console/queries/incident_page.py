"""Details of one incident: contracts, error budgets, calls and control actions."""

import sqlite3
from datetime import datetime, timedelta
from typing import Any

from mesh.console.incidents import runbooks
from mesh.console.incidents.causes import affected
from mesh.console.queries import mesh_status, objectives
from mesh.contract.policy import Mesh

BEFORE = timedelta(minutes=1)
"""How long before its first alert an incident is assumed to have started."""
MAX_EXEMPLARS = 5
"""The number of example calls per method."""


def detail(
    db: sqlite3.Connection, mesh: Mesh, incident: dict[str, Any], *, now: int
) -> dict[str, Any]:
    """
    Return *incident* with ``methods`` and ``actions``.

    Each method has its contract (``rpc, callers, deadlineMs, retries, source, …``), its calls
    during the incident (``calls, errors, objective, budgetLeft, budgetFailures``, the failures that
    its objective allows in a day) and ``exemplars``, failed calls first, then the slowest. Actions
    are the control actions that the runbook mentions, and ``fault clear`` after an injected fault.

    Args:
        db: The store.
        mesh: The contracts.
        incident: As the API shows it.
        now: The end of the range if the incident is still firing, in microseconds.
    """
    until = _seconds(incident["resolvedAt"]) if incident["resolvedAt"] else now // 1_000_000
    window = timedelta(seconds=max(1, until - _seconds(incident["since"]))) + BEFORE
    did = {one["rpc"]: one for one in objectives.methods(db, mesh, now=until, window=window)}
    rpcs = affected(mesh, incident)
    found = [
        mesh_status.policy(method)
        | did.get(method.short_name, {})
        | {"exemplars": _exemplars(db, method.short_name, until, window)}
        for method in mesh
        if method.short_name in rpcs
    ]
    injected = any(one["what"].startswith("fault add") for one in incident["changes"])
    actions = runbooks.actions(incident["runbook"].rpartition("/")[2])
    return incident | {
        # Failing ones first, then those that were called.
        "methods": sorted(
            found, key=lambda one: (one.get("errors", 0), one.get("calls", 0)), reverse=True
        ),
        "actions": list(dict.fromkeys([*actions, *(["fault clear"] if injected else [])])),
    }


def _exemplars(
    db: sqlite3.Connection, rpc: str, until: int, window: timedelta
) -> list[dict[str, Any]]:
    found = objectives.exemplars(db, rpc, now=until, window=window)
    worst = sorted(found, key=lambda one: (one["failed"], one["durationMs"]), reverse=True)
    return worst[:MAX_EXEMPLARS]


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())
