"""The mesh as it is now: processes, proxies, certificates, alerts; from what was scraped last."""

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from mesh.chassis.telemetry import names as emitted
from mesh.console import runbooks
from mesh.console.clock import rfc3339
from mesh.console.names import workload
from mesh.console.objectives import FAST, SLOW, Total, totals
from mesh.console.scrape import Seen
from mesh.contract.policy import Mesh

RENEWED_BELOW = 0.25
"""A certificate with less of its life left than this should have been renewed."""
LEAST_FAILED = 3
"""Fewer failures call nobody: at a low rate a single one burns any budget."""
_LABELS = {FAST: ("5m", "1h", "page"), SLOW: ("30m", "6h", "ticket")}


def processes(seen: Iterable[Seen]) -> list[dict[str, Any]]:
    """Return what is known of every process that exposes metrics."""
    return [
        {
            "process": one.target.process,
            "workload": workload(one.target.process),
            "up": not one.fault,
            "fault": one.fault,
            "lastScrape": rfc3339(one.at) if one.at else "",
            "memoryBytes": one.gauges.get("process_resident_memory_bytes"),
            "openFiles": one.gauges.get("process_open_fds"),
            "cpuSeconds": one.gauges.get("process_cpu_seconds"),
            "startedAt": _moment(one.gauges.get("process_start_time_seconds")),
            "inFlight": one.gauges.get(
                emitted.RPC_SERVER_IN_FLIGHT, one.gauges.get(emitted.HTTP_SERVER_IN_FLIGHT)
            ),
        }
        for one in seen
        if not one.target.is_envoy
    ]


def _moment(seconds: float | None) -> str:
    return rfc3339(int(seconds * 1e6)) if seconds else ""


def proxies(seen: Iterable[Seen]) -> list[dict[str, Any]]:
    """Return what every Envoy says of itself."""
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


def of_proxies(seen: Iterable[Seen], what: str) -> list[dict[str, Any]]:
    """Return the ``breakers``, ``weights`` or ``faults`` of all proxies, each with its process."""
    return [
        {"process": one.target.process, **found}
        for one in seen
        if one.proxy
        for found in getattr(one.proxy, what)
    ]


def ejections(seen: Iterable[Seen]) -> list[dict[str, Any]]:
    """Return the hosts that proxies leave out."""
    return [
        {"process": one.target.process, **host}
        for one in seen
        if one.proxy
        for host in one.proxy.hosts
        if host["ejected"]
    ]


def certificates(seen: Iterable[Seen], folder: Path | None, *, now: int) -> list[dict[str, Any]]:
    """Return every certificate that a process, a proxy or the folder shows, next to end first."""
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
            continue  # Replaced at this moment; the next look sees the new one.
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


RUNBOOK_OF = {
    "ServiceDown": "service-down.md",
    "ErrorBudgetBurn": "availability-budget-burns-fast.md",
    "SlowerThanPromised": "method-slower-than-promised.md",
    "CertificateNotRenewed": "certificate-expiring.md",
    "BreakerOpen": "breaker-open.md",
    "HostEjected": "host-ejected.md",
}
"""The runbook of each alert; the rules of Prometheus tell some of them more finely."""


def alerts(
    db: sqlite3.Connection, mesh: Mesh, seen: Iterable[Seen], folder: Path | None, *, now: int
) -> list[dict[str, Any]]:
    """Return what is wrong now, worst first, whether a Prometheus watches as well or not."""
    known = list(seen)
    found = [
        _alert("page", "ServiceDown", f"{one.target.process} {one.fault}.", one.target.process)
        for one in known
        if one.fault and one.at
    ]
    found += _burning(db, mesh, now=now // 1_000_000)
    found += [
        _alert(
            "ticket",
            "CertificateNotRenewed",
            f"The certificate of {one['process']} has {one['lifeLeft']:.0%} of its life left.",
            one["process"],
        )
        for one in certificates(known, folder, now=now)
        if one["lifeLeft"] < RENEWED_BELOW
    ]
    found += [
        _alert(
            "ticket", "BreakerOpen", f"{b['process']} → {b['cluster']}: {b['kind']}.", b["cluster"]
        )
        for b in of_proxies(known, "breakers")
    ]
    found += [
        _alert("ticket", "HostEjected", f"{h['process']} leaves out {h['address']}.", h["cluster"])
        for h in ejections(known)
    ]
    return sorted(found, key=lambda one: one["severity"] != "page")


def _burning(db: sqlite3.Connection, mesh: Mesh, *, now: int) -> Iterator[dict[str, Any]]:
    """Yield methods that spend their budget too fast, or are slower than they promise."""
    spans = {span for pair in (FAST, SLOW) for span in pair[:2]}
    burnt = {s: totals(db, since=_ago(now, s), until=now + 1, buckets=False) for s in spans}
    recent = totals(db, since=_ago(now, FAST[0]), until=now + 1)
    for method in mesh:
        name, objective = method.short_name, method.objective
        allowed = 1 - objective.availability
        for rule in (FAST, SLOW):
            short, long, factor = rule
            burns = [burnt[s].get(name, Total()).error_ratio / allowed for s in (short, long)]
            if min(burns) > factor and burnt[long][name].failed >= LEAST_FAILED:
                yield _alert(
                    _LABELS[rule][2],
                    "ErrorBudgetBurn",
                    f"{name} fails {burnt[short][name].error_ratio:.1%} of its calls: "
                    f"{burns[0]:.0f} times what its objective allows.",
                    name,
                )
                break
        total = recent.get(name, Total())
        if total.calls >= 20 and not method.streams:
            share = total.within(objective.latency)
            if share < objective.latency_share:
                yield _alert(
                    "ticket",
                    "SlowerThanPromised",
                    f"{name} answers {share:.0%} within "
                    f"{objective.latency.total_seconds() * 1000:g} ms; promised are "
                    f"{objective.latency_share:.0%}.",
                    name,
                )


def _ago(now: int, span: timedelta) -> int:
    return now - int(span.total_seconds())


def _alert(severity: str, name: str, message: str, subject: str) -> dict[str, Any]:
    return {
        "severity": severity,
        "name": name,
        "message": message,
        "subject": subject,
        "runbook": f"{runbooks.PATH}/{RUNBOOK_OF[name]}",
    }
