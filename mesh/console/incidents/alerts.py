"""
Alerts that the console evaluates itself, whether a Prometheus is running or not.

Names are those of the Prometheus rules. Conditions are the same, over shorter windows: the console
looks every few seconds and need not wait for a scrape of its own to be missed twice.
"""

import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from mesh.console.incidents import alert_table, runbooks
from mesh.console.incidents.observations import Observations
from mesh.console.intake.clock_offset import ClockOffsets
from mesh.console.intake.scraper import Seen
from mesh.console.naming import workload
from mesh.console.queries.increases import Increase, increases
from mesh.console.queries.mesh_status import certificates, ejections, of_proxies
from mesh.console.queries.objectives import FAST, SLOW, Total, totals
from mesh.contract.policy import Mesh

RENEWED_BELOW = 0.25
"""A certificate with a smaller share of its life left should have been renewed."""
MIN_FAILED = 3
MIN_BURNT = 5
"""Fewer failures do not alert: at a low rate a single one burns any budget."""
MIN_REFUSED = 10
DEPENDENCIES = {"outbox": "mail", "smtp": "mail", "appwrite": "identity", "redcap": "redcap"}
"""What systems outside of the mesh are called, by their name in telemetry."""
SLOW_REDCAP_SECONDS = 1.0
SLOW_DATABASE_SECONDS = 0.5
DISK_FREE = 0.05
STARTING = timedelta(seconds=30)
RECENT = timedelta(minutes=2)
_BAD_OUTCOMES = {"timeout", "away", "nonsense", "unavailable", "invalid", "error"}


@dataclass(frozen=True)
class Alert:
    """One firing alert: its name, the workload or dependency it is about, and a sentence."""

    name: str
    service: str
    message: str
    subject: str = ""
    """What exactly: a process, an rpc, a cluster."""
    state: str = "firing"
    source: str = "console"

    @property
    def severity(self) -> str:
        """``page`` or ``ticket``; for alerts of other rules as their server says."""
        return alert_table.severity(self.name) if self.name in alert_table.rules() else "ticket"

    @property
    def runbook(self) -> str:
        """The path of the runbook; empty when there is none."""
        if self.name not in alert_table.rules():
            return ""
        return f"{runbooks.PATH}/{alert_table.runbook(self.name)}"

    def to_json(self) -> dict[str, Any]:
        """Return the alert as the API shows it."""
        return {
            "severity": self.severity,
            "name": self.name,
            "service": self.service,
            "message": self.message,
            "subject": self.subject,
            "runbook": self.runbook,
        }


@dataclass(frozen=True)
class Situation:
    """What the conditions look at."""

    mesh: Mesh
    seen: Sequence[Seen]
    observed: Observations
    clocks: ClockOffsets
    certificates: Path | None
    database: Path
    write_fault: str
    now: int
    """Microseconds since the epoch."""


def evaluate(db: sqlite3.Connection, situation: Situation) -> list[Alert]:
    """Return what is wrong now, worst first."""
    s = situation
    recent = increases(db, since=s.now - _us(RECENT), until=s.now)
    found = [
        *_down(s),
        *_dependencies(db, recent, s.now),
        *_databases(recent),
        *_disk(s),
        *_clocks(s),
        *_certificates(s),
        *_canaries(s),
        *_refused(recent),
        *_retries(s),
        *_saturated(s),
        *_burning(db, s.mesh, now=s.now // 1_000_000),
        *_proxies(s),
    ]
    return sorted(found, key=lambda one: one.severity != "page")


def _down(s: Situation) -> Iterator[Alert]:
    for one in s.seen:
        process = one.target.process
        name = "ProxyDown" if one.target.is_envoy else "ServiceDown"
        # A runner names its targets before they have started.
        if not one.up_since and s.now - one.named_at < _us(STARTING):
            continue
        if one.fault and one.at:
            yield Alert(name, workload(process), f"{process} {one.fault}.", process)
        elif restarted := s.observed.unplanned_restart(process, s.now):
            yield Alert(name, workload(process), f"{process} {restarted}.", process)


def _dependencies(db: sqlite3.Connection, recent: Sequence[Increase], now: int) -> Iterator[Alert]:
    calls = [one for one in recent if one.name == "amarre_redcap_duration_seconds"]
    asked = sum(one.events for one in calls if one.labels.get("outcome") != "cancelled")
    failed = sum(one.events for one in calls if one.labels.get("outcome") in _BAD_OUTCOMES)
    fine = [one for one in calls if one.labels.get("outcome") == "ok" and one.events]
    if failed >= MIN_FAILED and failed > 0.2 * asked:
        kinds = sorted(
            {one.labels["outcome"] for one in calls if one.events} & (_BAD_OUTCOMES - {"cancelled"})
        )
        yield Alert(
            "RedcapFailing",
            "redcap",
            f"{failed:.0f} of {asked:.0f} calls to REDCap fail ({', '.join(kinds)}).",
        )
    elif fine:
        mean = sum(one.total for one in fine) / sum(one.events for one in fine)
        if mean > SLOW_REDCAP_SECONDS:
            yield Alert("RedcapSlow", "redcap", f"REDCap takes {mean:.1f} s on average.")
    since = now // 60_000_000 - 2
    rows = db.execute(
        "SELECT target, sum(calls), sum(errors) FROM edges WHERE minute > ? AND counted = 0"
        " GROUP BY target",
        (since,),
    ).fetchall()
    for target, total, errors in rows:
        if target not in DEPENDENCIES:
            continue
        dependency = DEPENDENCIES[target]
        if dependency == "redcap" or not errors or errors < 0.5 * total:
            continue
        if dependency == "mail":
            message = f"{errors} of {total} attempts to send a mail fail."
            yield Alert("MailFailing", "mail", message)
        else:
            message = f"{errors} of {total} calls to the identity provider fail."
            yield Alert("AppwriteFailing", "identity", message)


def _databases(recent: Sequence[Increase]) -> Iterator[Alert]:
    by_process: dict[str, tuple[float, float]] = {}
    for one in recent:
        if one.name == "amarre_db_duration_seconds":
            count, total = by_process.get(one.process, (0.0, 0.0))
            by_process[one.process] = count + one.events, total + one.total
    for process, (count, total) in by_process.items():
        if count and total / count > SLOW_DATABASE_SECONDS:
            yield Alert(
                "DatabaseSlow",
                workload(process),
                f"{process} waits {total / count:.1f} s for each statement of its database.",
                process,
            )


def _disk(s: Situation) -> Iterator[Alert]:
    if "full" in s.write_fault:
        yield Alert("DiskFilling", "console", "The disk of the console's file is full.")
        return
    try:
        usage = shutil.disk_usage(s.database.parent)
    except OSError:
        return  # The folder is gone; the writer reports that.
    if usage.free < DISK_FREE * usage.total:
        yield Alert(
            "DiskFilling",
            "console",
            f"{usage.free / usage.total:.1%} of the disk {s.database.parent} is free.",
        )


def _clocks(s: Situation) -> Iterator[Alert]:
    for process, offset in sorted(s.clocks.wrong().items()):
        side = "ahead" if offset > 0 else "behind"
        yield Alert(
            "ClockWrong",
            workload(process),
            f"The clock of {process} is {abs(offset):.0f} s {side}.",
            process,
        )


def _certificates(s: Situation) -> Iterator[Alert]:
    for one in certificates(s.seen, s.certificates, now=s.now):
        if one["lifeLeft"] < RENEWED_BELOW:
            yield Alert(
                "CertificateExpiring",
                one["workload"],
                f"The certificate of {one['process']} has {one['lifeLeft']:.0%} of its life left.",
                one["process"],
            )


def _canaries(s: Situation) -> Iterator[Alert]:
    for service, message in sorted(s.observed.failing_canaries(s.now).items()):
        yield Alert("CanaryFailing", service, message, f"{service}-canary")


def _refused(recent: Sequence[Increase]) -> Iterator[Alert]:
    by_rpc: dict[tuple[str, str], float] = {}
    for one in recent:
        if one.name == "amarre_refusals" and one.labels.get("reason") == "PERMISSION_DENIED":
            key = one.labels["service"], one.labels["method"]
            by_rpc[key] = by_rpc.get(key, 0) + one.events
    for (service, method), count in sorted(by_rpc.items()):
        if count > MIN_REFUSED:
            yield Alert(
                "CallersRefused",
                service,
                f"{count:.0f} calls of {service}.{method} by a caller that may not call it"
                " were refused.",
                f"{service}.{method}",
            )


def _retries(s: Situation) -> Iterator[Alert]:
    for process, cluster, retried, total in s.observed.retries(s.now):
        if retried >= 20 and retried > 0.15 * total:
            yield Alert(
                "RetryStorm",
                workload(cluster),
                f"{process} retries {retried / total:.0%} of its calls to {cluster}.",
                cluster,
            )


def _saturated(s: Situation) -> Iterator[Alert]:
    limits = {service.name: service.max_concurrent_requests for service in s.mesh.services}
    for service, in_flight in sorted(s.observed.in_flight(s.now).items()):
        limit = limits.get(service)
        if limit and in_flight > 0.8 * limit:
            yield Alert(
                "ServiceSaturated",
                service,
                f"{service} serves {in_flight:.0f} of at most {limit} calls at once.",
            )


def _proxies(s: Situation) -> Iterator[Alert]:
    for b in of_proxies(s.seen, "breakers"):
        message = f"{b['process']} rejects calls to {b['cluster']}: {b['kind']}."
        yield Alert("BreakerOpen", workload(b["cluster"]), message, b["cluster"])
    for h in ejections(s.seen):
        message = f"{h['process']} does not use {h['address']} of {h['cluster']}."
        yield Alert("HostEjected", workload(h["cluster"]), message, h["cluster"])


def _burning(db: sqlite3.Connection, mesh: Mesh, *, now: int) -> Iterator[Alert]:
    """Yield methods that spend their error budget too fast, or miss their latency objective."""
    spans = {span for pair in (FAST, SLOW) for span in pair[:2]}
    burnt = {s: totals(db, since=_ago(now, s), until=now + 1, buckets=False) for s in spans}
    recent = totals(db, since=_ago(now, FAST[0]), until=now + 1)
    for method in mesh:
        name, objective = method.short_name, method.objective
        allowed = 1 - objective.availability
        for rule, alert in (
            (FAST, "AvailabilityBudgetBurnsFast"),
            (SLOW, "AvailabilityBudgetBurnsSlowly"),
        ):
            short, long, factor = rule
            burns = [burnt[s].get(name, Total()).error_ratio / allowed for s in (short, long)]
            # A stream that stays open is opened again after each restart of its server.
            enough = 2 * MIN_BURNT if method.stays_open else MIN_BURNT
            if min(burns) > factor and burnt[long][name].failed >= enough:
                yield Alert(
                    alert,
                    method.service,
                    f"{name} fails {burnt[short][name].error_ratio:.1%} of its calls: "
                    f"{burns[0]:.0f} times what its objective allows.",
                    name,
                )
                break
        total = recent.get(name, Total())
        if total.calls >= 20 and not method.streams:
            share = total.within(objective.latency)
            if share < objective.latency_share:
                yield Alert(
                    "MethodSlowerThanPromised",
                    method.service,
                    f"{name} answers {share:.0%} of its calls within "
                    f"{objective.latency.total_seconds() * 1000:g} ms; its objective is "
                    f"{objective.latency_share:.0%}.",
                    name,
                )


def _us(span: timedelta) -> int:
    return int(span.total_seconds() * 1e6)


def _ago(now: int, span: timedelta) -> int:
    return now - int(span.total_seconds())


def worst_first(alerts: Iterable[Alert]) -> list[Alert]:
    """Return alerts by severity, each once."""
    return sorted(dict.fromkeys(alerts), key=lambda one: one.severity != "page")
