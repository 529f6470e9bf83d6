"""Alerts on processes and proxies, their databases, clocks and certificates, and on the disk."""

import shutil
from collections.abc import Container, Iterator, Sequence
from datetime import timedelta

from mesh.chassis.telemetry import names as emitted
from mesh.console.incidents.alert import HOST, Alert, Counted, Situation
from mesh.console.naming import workload
from mesh.console.queries.increases import Increase
from mesh.console.queries.mesh_status import certificates

RENEWED_BELOW = 0.25
"""A certificate with less of its lifetime left should have been renewed."""
SETTLED = timedelta(seconds=45)
"""How long a restarted process must be up until its failure is over; the calls that it failed are
noticed sooner."""
SLOW_DATABASE_SECONDS = 0.5
DISK_FREE = 0.05
LATE_SECONDS = 0.25
"""The mean delay of an event loop above which its process is overloaded."""


def alerts(s: Situation, counted: Counted) -> Iterator[Alert]:
    """Yield the alerts of this file."""
    starting = s.starting()
    yield from _down(s, starting)
    for one in (*_databases(s, counted.recent), *_late(counted.lately)):
        if one.subject not in starting:
            yield one
    yield from _disk(s)
    yield from _clocks(s)
    yield from _certificates(s)
    yield from _canaries(s)


def _down(s: Situation, starting: Container[str]) -> Iterator[Alert]:
    for one in s.seen:
        process = one.target.process
        name = "ProxyDown" if one.target.is_envoy else "ServiceDown"
        if process.removesuffix("-envoy").endswith("-canary"):
            if not s.observed.canary_runs(workload(process)):
                continue  # It was aborted or promoted, or is starting.
            name = "CanaryFailing"
        fails = one.fault if one.at and process not in starting else ""
        if why := fails or s.observed.unplanned_restart(process, s.now):
            over = not fails and one.up_since < s.since(SETTLED)
            yield Alert(name, workload(process), f"{process} {why}.", process, over=over)


def unavailable(s: Situation, dependency: str) -> list[str]:
    """Return the processes whose health checks of *dependency* fail."""
    return [
        one.target.process
        for one in s.seen
        if not one.fault and not one.dependencies.get(dependency, True)
    ]


def _databases(s: Situation, recent: Sequence[Increase]) -> Iterator[Alert]:
    for process in unavailable(s, "database writes"):
        yield Alert(
            "DatabaseSlow",
            workload(process),
            f"{process} cannot write to its database: it is locked, full or unavailable.",
            process,
        )
    by_process: dict[str, tuple[float, float]] = {}
    for one in recent:
        if one.name == emitted.DB_DURATION:
            count, total = by_process.get(one.process, (0.0, 0.0))
            by_process[one.process] = count + one.events, total + one.total
    for process, (count, total) in by_process.items():
        if count and total / count > SLOW_DATABASE_SECONDS:
            yield Alert(
                "DatabaseSlow",
                workload(process),
                f"{process} waits {total / count:.1f} s for each database statement.",
                process,
            )


def _late(lately: Sequence[Increase]) -> Iterator[Alert]:
    for one in lately:
        if one.name == emitted.EVENT_LOOP_LAG and one.total / one.events > LATE_SECONDS:
            yield Alert(
                "EventLoopLate",
                workload(one.process),
                f"The event loop of {one.process} is {one.total / one.events:.2f} s late.",
                one.process,
            )


def _disk(s: Situation) -> Iterator[Alert]:
    if "full" in s.write_fault:
        yield Alert("DiskFilling", HOST, "The disk that holds the console's database is full.")
        return
    try:
        usage = shutil.disk_usage(s.database.parent)
    except OSError:
        return  # The folder does not exist; the writer reports that.
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
                f"The certificate of {one['process']} has {one['lifeLeft']:.0%} of its lifetime"
                " left.",
                one["process"],
            )


def _canaries(s: Situation) -> Iterator[Alert]:
    for service, message in sorted(s.observed.failing_canaries(s.now).items()):
        yield Alert("CanaryFailing", service, message, f"{service}-canary")
