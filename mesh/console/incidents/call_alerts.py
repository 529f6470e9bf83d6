"""Alerts on denied, retried, rejected, failing and slow calls, circuit breakers and ejections."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from mesh.chassis.telemetry.names import CALLER_ID
from mesh.console.incidents.alert import LATELY, RECENT, Alert, Counted, Situation
from mesh.console.naming import caller, cluster_workload, is_failure, workload
from mesh.console.queries.increases import LIMIT_REFUSALS, REFUSALS, Increase
from mesh.console.queries.mesh_status import ejections
from mesh.console.queries.objectives import FAST, SLOW, Total, totals
from mesh.contract.policy import Mesh

MIN_BURNT = 5
"""Fewer failures do not alert: at a low rate, a single failure exceeds any budget."""
STOPPED = timedelta(seconds=30)
"""Failures have stopped after as many calls that succeeded, the last failure this long ago."""
SLOW_METHOD = "MethodSlowerThanPromised"
OF_FAILURES = frozenset(
    {"AvailabilityBudgetBurnsFast", "AvailabilityBudgetBurnsSlowly", "ErrorsAboveFivePercent"}
    | {"GatewayErrors"}
)
"""Alerts on the failed calls of a service over a longer time."""
MIN_REFUSED = 10
MOST_DENIED = 1000
"""The number of denied calls that are searched for the identity of their caller."""


def alerts(s: Situation, counted: Counted, db: sqlite3.Connection) -> Iterator[Alert]:
    """Yield the alerts of this file."""
    yield from _denied_callers(s, counted, db)
    yield from _saturated(s)
    yield from _overloaded(s, counted.lately)
    yield from _burning(db, s.mesh, now=s.now // 1_000_000)
    starting = {workload(process) for process in s.starting()}
    for one in (*_retries(s, db), *_proxies(s)):
        if one.service not in starting:
            yield one


def last_failure(db: sqlite3.Connection, service: str, method: str = "", *, now: int) -> int:
    """
    Return when calls failed last (Unix seconds), if they no longer do at *now*; 0 if they may.

    Args:
        db: The store.
        service: The called service.
        method: One of its methods; empty: all of them.
        now: The current time.
    """
    rows = db.execute(
        "SELECT slot, code, sum(calls) FROM calls WHERE slot >= ? AND service = ?"
        " AND ? IN ('', method) GROUP BY slot, code ORDER BY slot DESC",
        (_ago(now, FAST[0]), service, method),
    )
    succeeded = 0.0
    for slot, code, calls in rows:
        if is_failure(code):
            stopped = slot <= _ago(now, STOPPED) and succeeded >= MIN_BURNT
            return int(slot) if stopped else 0
        succeeded += calls
    return _ago(now, FAST[0]) if succeeded >= MIN_BURNT else 0


def _denied_callers(s: Situation, counted: Counted, db: sqlite3.Connection) -> Iterator[Alert]:
    """
    Yield methods that deny callers which their contract does not name.

    Without proxies, services count what they deny; behind a proxy, they do not see these calls, but
    the proxy's spans do.
    """
    by_service, by_proxy = Counter[str](), Counter[str]()
    for one in counted.recent:
        if one.name == REFUSALS and one.labels.get("reason") == "PERMISSION_DENIED":
            by_service[f"{one.labels['service']}.{one.labels['method']}"] += round(one.events)
    callers: dict[str, set[str]] = defaultdict(set)
    methods = {method.short_name: method for method in s.mesh}
    for (source, _, rpc), edge in counted.edges.items():
        if rpc in methods and not methods[rpc].allows(source):
            by_proxy[rpc] += edge.refused
            callers[rpc].add(source or "an unknown caller")
    for rpc, count in sorted((by_service | by_proxy).items()):
        if count > MIN_REFUSED:
            ids = _spiffe_ids(db, rpc, callers[rpc], since=s.since(RECENT))
            who = " and ".join(ids) or "a caller or user without permission"
            why = "; its contract does not name this caller" if ids else ""
            yield Alert(
                "CallersRefused",
                rpc.partition(".")[0],
                f"{count} calls to {rpc} by {who} were denied{why}.",
                rpc,
            )


def _spiffe_ids(
    db: sqlite3.Connection, rpc: str, callers: Iterable[str], *, since: int
) -> list[str]:
    """Return the SPIFFE id of each of *callers*, or its name if no span has the id."""
    rows = db.execute(
        "SELECT json_extract(s.attributes, ?) AS caller FROM spans s JOIN names n ON n.id = s.rpc"
        " WHERE n.text = ? AND s.start >= ? AND s.code = 'PERMISSION_DENIED' AND caller NOTNULL"
        " ORDER BY s.start DESC LIMIT ?",
        (f'$."{CALLER_ID}"', rpc, since, MOST_DENIED),
    )
    known = {caller(str(row[0])): str(row[0]) for row in rows}
    return [known.get(name, name) for name in sorted(callers)]


def _retries(s: Situation, db: sqlite3.Connection) -> Iterator[Alert]:
    goes_on = {one[:2] for one in s.observed.retries(STOPPED, s.now)}
    for process, cluster, retried, total in s.observed.retries(RECENT, s.now):
        # Retry budgets allow one retry per five calls, a sixth of all requests; calls before the
        # storm are in the window, too.
        if retried >= 20 and retried > 0.1 * total:
            service = cluster_workload(cluster, process)
            over = (process, cluster) not in goes_on
            failing = "" if over else _worst(db, service, now=s.now // 1_000_000)
            verb = "retried" if over else "retries"
            message = f"{process} {verb} {retried / total:.0%} of its calls to {cluster}{failing}."
            yield Alert("RetryStorm", service, message, cluster, over=over)


def _worst(db: sqlite3.Connection, service: str, *, now: int) -> str:
    """Return a phrase for the method of *service* that fails most; empty if none does."""
    lately = totals(db, since=_ago(now, STOPPED), until=now + 1, buckets=False)
    found = [(one.failed, name) for name, one in lately.items() if name.startswith(f"{service}.")]
    failed, name = max(found, default=(0, ""))
    return f"; {name} fails {lately[name].error_ratio:.0%} of its calls" if failed else ""


def _saturated(s: Situation) -> Iterator[Alert]:
    limits = {service.name: service.max_concurrent_requests for service in s.mesh.services}
    for service, in_flight in sorted(s.observed.in_flight(s.now).items()):
        limit = limits.get(service)
        if limit and in_flight > 0.8 * limit:
            yield Alert(
                "ServiceSaturated",
                service,
                f"{service} has {in_flight:.0f} calls in flight; its limit is {limit}.",
            )


def _overloaded(s: Situation, lately: Sequence[Increase]) -> Iterator[Alert]:
    counted = [
        (one.process, one.labels["limit"], one.events)
        for one in lately
        if one.name == LIMIT_REFUSALS
    ]
    refused: dict[str, Counter[str]] = defaultdict(Counter)
    for process, limit, count in (*counted, *s.observed.refused(LATELY, s.now)):
        refused[workload(process)][limit] += round(count)
    for service, limits in refused.items():
        if limits.total() > MIN_REFUSED:
            yield Alert(
                "LimitRefusals",
                service,
                f"{service} rejects requests above its limits: "
                + ", ".join(f"{count} by {name}" for name, count in limits.most_common())
                + f" in {LATELY.total_seconds():.0f} s.",
            )


def _proxies(s: Situation) -> Iterator[Alert]:
    # A breaker at its limit rejects only what exceeds it.
    for process, cluster, count in s.observed.overflows(LATELY, s.now):
        if count > MIN_REFUSED:
            service = cluster_workload(cluster, process)
            message = (
                f"{process} rejected {count} calls to {cluster} in {LATELY.total_seconds():.0f} s: "
                "its circuit breaker is open."
            )
            yield Alert("BreakerOpen", service, message, cluster)
    for h in ejections(s.seen):
        message = f"{h['process']} has ejected {h['address']} of {h['cluster']}."
        service = cluster_workload(h["cluster"], h["process"])
        yield Alert("HostEjected", service, message, h["cluster"])


def _burning(db: sqlite3.Connection, mesh: Mesh, *, now: int) -> Iterator[Alert]:
    """Yield methods that burn their error budget too fast, or miss their latency objective."""
    spans = {span for pair in (FAST, SLOW) for span in pair[:2]}
    burnt = {s: totals(db, since=_ago(now, s), until=now + 1, buckets=False) for s in spans}
    minute = totals(db, since=_ago(now, timedelta(minutes=1)), until=now + 1, buckets=False)
    # Slow calls are fewer per second than the fast ones before them, which a longer window has.
    lately = totals(db, since=_ago(now, LATELY), until=now + 1)
    for method in mesh:
        # Callers count a stream when it ends, and each failed attempt to open one while they start:
        # an error ratio of those says nothing about the streams that are open.
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
                ratio, minutes = burnt[short][name].error_ratio, _minutes(short)
                if over := last_failure(db, method.service, method.name, now=now):
                    since = datetime.fromtimestamp(over, UTC)
                    message = (
                        f"{name} failed {ratio:.1%} of its calls in {minutes}, none since "
                        f"{since:%H:%M:%S} UTC."
                    )
                else:
                    current = minute.get(name, Total()).error_ratio
                    failed = f"{ratio:.1%} of its calls in {minutes}"
                    if current:
                        failed = f"{current:.0%} of its calls now, {ratio:.1%} in {minutes}"
                    message = (
                        f"{name} fails {failed}: {burns[0]:.0f} times what its objective allows."
                    )
                yield Alert(alert, method.service, message, name, over=over > 0)
                break
        total = lately.get(name, Total())
        if total.calls >= 20 and not method.streams:
            share = total.within(objective.latency)
            if share < objective.latency_share:
                yield Alert(
                    SLOW_METHOD,
                    method.service,
                    f"{name} serves {share:.0%} of its calls within "
                    f"{objective.latency.total_seconds() * 1000:g} ms; its objective is "
                    f"{objective.latency_share:.0%}.",
                    name,
                )


def _minutes(span: timedelta) -> str:
    return f"{span.total_seconds() / 60:.0f} min"


def _ago(now: int, span: timedelta) -> int:
    return now - int(span.total_seconds())
