"""Current state of processes, proxies and certificates, from the latest scrape."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from mesh.chassis.telemetry import names as emitted
from mesh.console.clock import parse, rfc3339
from mesh.console.incidents.alert import STARTING
from mesh.console.incidents.changes import us
from mesh.console.intake.clock_offset import ClockOffsets
from mesh.console.intake.scraper import STARTED, Seen
from mesh.console.naming import workload
from mesh.console.store.call_edges import GATEWAY
from mesh.contract.policy import Method

NOTICED = timedelta(seconds=5)
"""How long proxies may take to notice that a service is up."""


def processes(seen: Iterable[Seen], clocks: ClockOffsets) -> list[dict[str, Any]]:
    """Return the state of every process that exposes metrics."""
    return [process(one, clocks) for one in seen if not one.target.is_envoy]


def process(one: Seen, clocks: ClockOffsets) -> dict[str, Any]:
    """Return the state of one process; unknown values are null."""
    return {
        "process": one.target.process,
        "workload": workload(one.target.process),
        "up": not one.fault,
        "fault": one.fault,
        "version": one.version,
        "lastScrape": rfc3339(one.at) if one.at else "",
        "memoryBytes": one.gauges.get("process_resident_memory_bytes"),
        "clockOffsetSeconds": clocks.seconds(one.target.process),
        "openFiles": one.gauges.get("process_open_fds"),
        "cpuSeconds": one.gauges.get("process_cpu_seconds"),
        "startedAt": _moment(one.gauges.get(STARTED)),
        "inFlight": one.gauges.get(
            emitted.RPC_SERVER_IN_FLIGHT, one.gauges.get(emitted.HTTP_SERVER_IN_FLIGHT)
        ),
    }


def _moment(seconds: float | None) -> str:
    return rfc3339(int(seconds * 1e6)) if seconds else ""


def proxies(seen: Iterable[Seen]) -> list[dict[str, Any]]:
    """Return the state of every Envoy, from its admin interface."""
    return [
        {
            "process": one.target.process,
            "up": not one.fault,
            "fault": one.fault,
            **(
                {
                    "version": one.proxy.version,
                    "state": one.proxy.state,
                    "uptimeSeconds": one.proxy.uptime_seconds,
                    "hosts": one.proxy.hosts,
                    "routes": one.proxy.routes,
                    "counters": one.proxy.counters,
                }
                if one.proxy
                else {"hosts": [], "routes": [], "counters": {}}
            ),
        }
        for one in seen
        if one.target.is_envoy
    ]


def policy(method: Method) -> dict[str, Any]:
    """Return the policy of one method, from its contract."""
    return {
        "rpc": method.short_name,
        "callers": list(method.callers),
        "deadlineMs": method.deadline.total_seconds() * 1000,
        "session": method.needs_session,
        "retries": method.may_retry,
        "idempotency": method.idempotency.name,
        "source": method.source,
    }


def of_proxies(seen: Iterable[Seen], what: str) -> list[dict[str, Any]]:
    """Return the ``breakers``, ``weights`` or ``faults`` of all proxies, each with its process."""
    return [
        {"process": one.target.process, **found}
        for one in seen
        if one.proxy
        for found in getattr(one.proxy, what)
    ]


def ejections(seen: Iterable[Seen]) -> list[dict[str, Any]]:
    """Return the hosts that proxies have ejected, by outlier detection or health checks."""
    return [
        {"process": one.target.process, **host}
        for one in seen
        if one.proxy
        for host in one.proxy.hosts
        if host["ejected"] or host["failing"]
    ]


def certificates(seen: Iterable[Seen], folder: Path | None, *, now: int) -> list[dict[str, Any]]:
    """Return every certificate of processes, proxies and the folder, next to expire first."""
    found: dict[str, dict[str, Any]] = {}
    for one in seen:
        process = one.target.process
        begins = one.gauges.get(emitted.CERTIFICATE_NOT_BEFORE)
        ends = one.gauges.get(emitted.CERTIFICATE_NOT_AFTER)
        if begins and ends:
            found[process] = _life(process, begins, ends, now)
        for leaf in one.proxy.certificates if one.proxy else ():
            try:
                times = (_seconds(leaf["notBefore"]), _seconds(leaf["notAfter"]))
            except ValueError:
                continue
            key = f"{process} {leaf['subject']}"
            found[key] = _life(process, *times, now) | {"subject": leaf["subject"]}
    for process, begins, ends in _installed(folder):
        found.setdefault(process, _life(process, begins, ends, now))
    return sorted(found.values(), key=lambda one: str(one["notAfter"]))


def _installed(folder: Path | None) -> Iterator[tuple[str, float, float]]:
    for path in sorted(folder.glob("*/tls.crt")) if folder else ():
        try:
            leaf = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError):
            continue  # It is being replaced; the next request reads the new one.
        begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        yield path.parent.name, begins.timestamp(), ends.timestamp()


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()


def _life(process: str, begins: float, ends: float, now: int) -> dict[str, Any]:
    left = ends - now / 1e6
    return {
        "process": process,
        "workload": workload(process),
        "subject": "",
        "notBefore": rfc3339(int(begins * 1e6)),
        "notAfter": rfc3339(int(ends * 1e6)),
        "daysLeft": left / 86_400,
        "lifeLeft": max(0.0, left / (ends - begins)) if ends > begins else 0.0,
    }


def explained(items: Iterable[dict[str, Any]], seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """
    Return summaries of traces with ``whileStarting``: the service whose start explains the failure.

    It is empty for a trace without failures, and for a failure that matters.
    """
    known = dict[str, tuple[int, int] | None]()

    def service(item: dict[str, Any]) -> str:
        if item["status"] != "error":
            return ""
        rpc = (item["failedAt"] or {}).get("rpc") or item["rpc"]
        name = rpc.partition(".")[0] or GATEWAY
        if name not in known:
            known[name] = start_of(name, seen)
        phase = known[name]
        return name if phase and phase[0] <= parse(item["start"]) <= phase[1] else ""

    return [item | {"whileStarting": service(item)} for item in items]


def start_of(name: str, seen: Sequence[Seen]) -> tuple[int, int] | None:
    """
    Return when a service last started, from its first process to when its peers could call it.

    Both are microseconds since 1970. None if another process of it was up meanwhile, or if that is
    not known, as after a restart of the console.
    """
    own = [s for s in seen if workload(s.target.process) == name and not s.target.is_envoy]
    began = min((int(one.gauges.get(STARTED, 0) * 1e6) for one in own), default=0)
    up = min((one.up_since for one in own), default=0)
    if not 0 < began < up < began + us(STARTING):
        return None
    return began, up + us(NOTICED)
