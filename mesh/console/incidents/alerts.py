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
from mesh.console.naming import cluster_workload, workload
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
OWN = frozenset(
    {
        *("ServiceDown", "ProxyDown", "RedcapFailing", "RedcapSlow", "MailFailing"),
        *("AppwriteFailing", "DatabaseSlow", "CanaryFailing"),
    }
)
"""Alerts that the console evaluates from fresher data than Prometheus, which keeps them longer."""
DISK_FREE = 0.05
LATE_SECONDS = 0.25
"""Mean delay of an event loop above which every call of its process waits."""
HOST = "host"
"""What alerts on the machine itself are about."""
STARTING = timedelta(seconds=30)
RECENT = timedelta(minutes=2)
LATELY = timedelta(seconds=45)
"""How far back calls to dependencies count: long enough for several checks of an idle mesh."""
_OUTCOMES = {
    "timeout": "it does not answer in time",
    "away": "it cannot be reached",
    "nonsense": "it answers with errors or something that is not REDCap's",
}
"""The outcomes of calls to REDCap that are its fault."""


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
    lately = increases(db, since=s.now - _us(LATELY), until=s.now)
    found = [
        *_down(s),
        *_redcap(s, lately),
        *_mail_and_identity(s, db),
        *_databases(s, recent),
        *_disk(s),
        *_clocks(s),
        *_certificates(s),
        *_canaries(s),
        *_refused(recent),
        *_intruders(s, db),
        *_retries(s),
        *_saturated(s),
        *_overloaded(lately),
        *_burning(db, s.mesh, now=s.now // 1_000_000),
        *_proxies(s),
    ]
    return sorted(found, key=lambda one: one.severity != "page")


def _down(s: Situation) -> Iterator[Alert]:
    for one in s.seen:
        process = one.target.process
        name = "ProxyDown" if one.target.is_envoy else "ServiceDown"
        canary = process.removesuffix("-envoy").endswith("-canary")
        if canary:
            if not s.observed.canary_runs(workload(process)):
                continue  # It was aborted or promoted, or starts.
            name = "CanaryFailing"
        # A runner names its targets before they have started.
        if not one.up_since and s.now - one.named_at < _us(STARTING):
            continue
        if one.fault and one.at:
            yield Alert(name, workload(process), f"{process} {one.fault}.", process)
        elif restarted := s.observed.unplanned_restart(process, s.now):
            yield Alert(name, workload(process), f"{process} {restarted}.", process)


def _unavailable(s: Situation, dependency: str) -> list[str]:
    """Return the processes whose checks of *dependency* fail."""
    return [
        one.target.process
        for one in s.seen
        if not one.fault and not one.dependencies.get(dependency, True)
    ]


def _redcap(s: Situation, lately: Sequence[Increase]) -> Iterator[Alert]:
    calls = [one for one in lately if one.name == "amarre_redcap_duration_seconds"]
    by_outcome: dict[str, float] = {}
    for one in calls:
        outcome = one.labels["outcome"]
        by_outcome[outcome] = by_outcome.get(outcome, 0) + one.events
    asked = sum(by_outcome.values()) - by_outcome.get("cancelled", 0)
    failed = {outcome: by_outcome[outcome] for outcome in _OUTCOMES if by_outcome.get(outcome)}
    how = ", ".join(_OUTCOMES[outcome] for outcome in failed) or "its answers come too late"
    fails = sum(failed.values())
    if checking := _unavailable(s, "redcap"):
        yield Alert(
            "RedcapFailing", "redcap", f"REDCap fails the checks of {', '.join(checking)}: {how}."
        )
    elif fails >= MIN_FAILED and fails > 0.2 * asked:
        yield Alert("RedcapFailing", "redcap", f"{fails:.0f} of {asked:.0f} calls fail: {how}.")
    fine = [one for one in calls if one.labels["outcome"] == "ok" and one.events]
    if fine:
        mean = sum(one.total for one in fine) / sum(one.events for one in fine)
        if mean > SLOW_REDCAP_SECONDS:
            yield Alert("RedcapSlow", "redcap", f"REDCap takes {mean:.1f} s on average.")


def _mail_and_identity(s: Situation, db: sqlite3.Connection) -> Iterator[Alert]:
    rows = db.execute(
        "SELECT target, sum(calls), sum(errors) FROM edges WHERE minute > ? AND counted = 0"
        " GROUP BY target",
        (s.now // 60_000_000 - 2,),
    ).fetchall()
    failed = {
        DEPENDENCIES[target]: (errors, total)
        for target, total, errors in rows
        if target in DEPENDENCIES and errors and errors >= 0.5 * total
    }
    for dependency, alert, called, attempts in (
        ("mail", "MailFailing", "The mail server", "attempts to send a mail"),
        ("identity", "AppwriteFailing", "The identity provider", "calls to the identity provider"),
    ):
        if checking := _unavailable(s, dependency):
            message = f"{called} fails the checks of {', '.join(checking)}."
            yield Alert(alert, dependency, message)
        elif dependency in failed:
            errors, total = failed[dependency]
            yield Alert(alert, dependency, f"{errors} of {total} {attempts} fail.")


def _databases(s: Situation, recent: Sequence[Increase]) -> Iterator[Alert]:
    for process in _unavailable(s, "database writes"):
        yield Alert(
            "DatabaseSlow",
            workload(process),
            f"{process} cannot write to its database: it is locked, full or unavailable.",
            process,
        )
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
        yield Alert("DiskFilling", HOST, "The disk of the console's file is full.")
        return
    try:
        usage = shutil.disk_usage(s.database.parent)
    except OSError:
        return  # The folder is gone; the writer reports that.
    if usage.free < DISK_FREE * usage.total:
        yield Alert(
            "DiskFilling",
            HOST,
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


def _intruders(s: Situation, db: sqlite3.Connection) -> Iterator[Alert]:
    """Yield callers whom proxies refuse: the service behind does not see their calls."""
    rows = db.execute(
        "SELECT source, rpc, sum(refused) FROM edges WHERE minute > ? AND counted = 0"
        " AND refused > 0 GROUP BY source, rpc",
        (s.now // 60_000_000 - 2,),
    ).fetchall()
    methods = {method.short_name: method for method in s.mesh}
    for source, rpc, count in rows:
        method = methods.get(rpc)
        if method is None or count <= MIN_REFUSED or method.allows(source):
            continue
        yield Alert(
            "CallersRefused",
            method.service,
            f"{count} calls of {rpc} by {source or 'an unknown caller'}, which its contract does"
            " not name, were refused.",
            rpc,
        )


def _retries(s: Situation) -> Iterator[Alert]:
    for process, cluster, retried, total in s.observed.retries(s.now):
        if retried >= 20 and retried > 0.15 * total:
            yield Alert(
                "RetryStorm",
                cluster_workload(cluster, process),
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


def _overloaded(lately: Sequence[Increase]) -> Iterator[Alert]:
    refused: dict[str, dict[str, float]] = {}
    for one in lately:
        if one.name == "amarre_limit_refusals":
            limits = refused.setdefault(one.process, {})
            limits[one.labels["limit"]] = limits.get(one.labels["limit"], 0) + one.events
        elif one.name == "amarre_event_loop_lag_seconds" and one.total / one.events > LATE_SECONDS:
            yield Alert(
                "EventLoopLate",
                workload(one.process),
                f"The event loop of {one.process} runs {one.total / one.events:.2f} s late.",
                one.process,
            )
    for process, limits in refused.items():
        if sum(limits.values()) > MIN_REFUSED:
            yield Alert(
                "LimitRefusals",
                workload(process),
                f"{process} refuses requests above its limits: "
                + ", ".join(f"{count:.0f} by {name}" for name, count in sorted(limits.items()))
                + f" in {LATELY.total_seconds():.0f} s.",
                process,
            )


def _proxies(s: Situation) -> Iterator[Alert]:
    for b in of_proxies(s.seen, "breakers"):
        message = f"{b['process']} rejects calls to {b['cluster']}: {b['kind']}."
        service = cluster_workload(b["cluster"], b["process"])
        yield Alert("BreakerOpen", service, message, b["cluster"])
    for h in ejections(s.seen):
        message = f"{h['process']} does not use {h['address']} of {h['cluster']}."
        service = cluster_workload(h["cluster"], h["process"])
        yield Alert("HostEjected", service, message, h["cluster"])


def _burning(db: sqlite3.Connection, mesh: Mesh, *, now: int) -> Iterator[Alert]:
    """Yield methods that spend their error budget too fast, or miss their latency objective."""
    spans = {span for pair in (FAST, SLOW) for span in pair[:2]}
    burnt = {s: totals(db, since=_ago(now, s), until=now + 1, buckets=False) for s in spans}
    recent = totals(db, since=_ago(now, FAST[0]), until=now + 1)
    for method in mesh:
        # Callers count only the ends of streams that stay open, and each attempt to open one
        # while they start: a share of those says nothing about the streams that are open.
        if method.stays_open:
            continue
        name, objective = method.short_name, method.objective
        allowed = 1 - objective.availability
        for rule, alert in (
            (FAST, "AvailabilityBudgetBurnsFast"),
            (SLOW, "AvailabilityBudgetBurnsSlowly"),
        ):
            short, long, factor = rule
            burns = [burnt[s].get(name, Total()).error_ratio / allowed for s in (short, long)]
            if min(burns) > factor and burnt[long][name].failed >= MIN_BURNT:
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
