"""Alerts that the console evaluates itself, whether a Prometheus is running or not."""

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from mesh.console.incidents import runbooks
from mesh.console.intake.scraper import Seen
from mesh.console.queries.mesh_status import certificates, ejections, of_proxies
from mesh.console.queries.objectives import FAST, SLOW, Total, totals
from mesh.contract.policy import Mesh

RENEWED_BELOW = 0.25
"""A certificate with less of its life left than this should have been renewed."""
LEAST_FAILED = 3
"""Fewer failures call nobody: at a low rate a single one burns any budget."""
_LABELS = {FAST: ("5m", "1h", "page"), SLOW: ("30m", "6h", "ticket")}


RUNBOOK_OF = {
    "ServiceDown": "service-down.md",
    "ErrorBudgetBurn": "availability-budget-burns-fast.md",
    "SlowerThanPromised": "method-slower-than-promised.md",
    "CertificateNotRenewed": "certificate-expiring.md",
    "BreakerOpen": "breaker-open.md",
    "HostEjected": "host-ejected.md",
}
"""The runbook of each alert; the rules of Prometheus tell some of them more finely."""


def evaluate(
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
