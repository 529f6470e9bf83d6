"""When services last started, and the failed calls that this explains."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from mesh.console.incidents.alert import STARTING
from mesh.console.intake.scraper import Seen
from mesh.console.naming import workload
from mesh.console.store.call_edges import GATEWAY

STARTED = "process_start_time_seconds"
NOTICED = timedelta(seconds=5)
"""How long proxies may take to notice that a service is up."""


def explained(items: Iterable[dict[str, Any]], seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """
    Return summaries of traces with ``whileStarting``: the service whose start explains the failure.

    It is empty for a trace without failures, and for a failure that matters.
    """
    known = dict[str, tuple[float, float] | None]()

    def service(item: dict[str, Any]) -> str:
        if item["status"] != "error":
            return ""
        rpc = (item["failedAt"] or {}).get("rpc") or item["rpc"]
        name = rpc.partition(".")[0] or GATEWAY
        if name not in known:
            known[name] = start_of(name, seen)
        phase = known[name]
        at = datetime.fromisoformat(item["start"]).timestamp()
        return name if phase and phase[0] <= at <= phase[1] else ""

    return [item | {"whileStarting": service(item)} for item in items]


def start_of(name: str, seen: Sequence[Seen]) -> tuple[float, float] | None:
    """
    Return when a service last started, from its first process to when its peers could call it.

    Both are seconds since 1970. None if another process of it was up meanwhile, or if that is not
    known, as after a restart of the console.
    """
    own = [s for s in seen if workload(s.target.process) == name and not s.target.is_envoy]
    began = min((one.gauges.get(STARTED, 0) for one in own), default=0)
    up = min((one.up_since / 1e6 for one in own), default=0)
    if not 0 < began < up < began + STARTING.total_seconds():
        return None
    return began, up + NOTICED.total_seconds()
