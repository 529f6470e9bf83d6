"""Alerts on denied, retried, rejected, failing and slow calls, circuit breakers and ejections."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from mesh.console.incidents.alert import LATELY, Alert, Counted, Situation
from mesh.console.naming import cluster_workload, workload
from mesh.console.queries.increases import LIMIT_REFUSALS, REFUSALS, Increase
from mesh.console.queries.mesh_status import ejections, of_proxies
from mesh.console.queries.objectives import FAST, SLOW, Total, totals
from mesh.console.queries.service_graph import Key
from mesh.console.queries.service_graph import Seen as Edge
from mesh.contract.policy import Mesh

MIN_BURNT = 5
"""Fewer failures do not alert: at a low rate, a single failure exceeds any budget."""
MIN_REFUSED = 10


def alerts(s: Situation, counted: Counted, db: sqlite3.Connection) -> Iterator[Alert]:
    """Yield the alerts of this file."""
    yield from _denied_callers(counted.recent)
    yield from _callers_denied_by_proxies(s, counted.edges)
    yield from _saturated(s)
    yield from _overloaded(s, counted.lately)
    yield from _burning(db, s.mesh, now=s.now // 1_000_000)
    starting = {workload(process) for process in s.starting()}
    for one in (*_retries(s), *_proxies(s)):
        if one.service not in starting:
            yield one


def _denied_callers(recent: Sequence[Increase]) -> Iterator[Alert]:
    by_rpc: dict[tuple[str, str], float] = {}
    for one in recent:
        if one.name == REFUSALS and one.labels.get("reason") == "PERMISSION_DENIED":
            key = one.labels["service"], one.labels["method"]
            by_rpc[key] = by_rpc.get(key, 0) + one.events
    for (service, method), count in sorted(by_rpc.items()):
        if count > MIN_REFUSED:
            yield Alert(
                "CallersRefused",
                service,
                f"{count:.0f} calls to {service}.{method} by a caller without permission"
                " were denied.",
                f"{service}.{method}",
            )


def _callers_denied_by_proxies(s: Situation, edges: Mapping[Key, Edge]) -> Iterator[Alert]:
    """Yield callers that proxies deny: the service behind the proxy does not see their calls."""
    methods = {method.short_name: method for method in s.mesh}
    for (source, _, rpc), edge in edges.items():
        method = methods.get(rpc)
        if method is None or edge.refused <= MIN_REFUSED or method.allows(source):
            continue
        yield Alert(
            "CallersRefused",
            method.service,
            f"{edge.refused} calls to {rpc} by {source or 'an unknown caller'}, which its contract"
            " does not name, were denied.",
            rpc,
        )


def _retries(s: Situation) -> Iterator[Alert]:
    for process, cluster, retried, total in s.observed.retries(s.now):
        # Retry budgets allow one retry per five calls, a sixth of all requests; calls before the
        # storm are in the window, too.
        if retried >= 20 and retried > 0.1 * total:
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
    for b in of_proxies(s.seen, "breakers"):
        message = f"{b['process']} rejects calls to {b['cluster']}: {b['kind']}."
        service = cluster_workload(b["cluster"], b["process"])
        yield Alert("BreakerOpen", service, message, b["cluster"])
    for h in ejections(s.seen):
        message = f"{h['process']} has ejected {h['address']} of {h['cluster']}."
        service = cluster_workload(h["cluster"], h["process"])
        yield Alert("HostEjected", service, message, h["cluster"])


def _burning(db: sqlite3.Connection, mesh: Mesh, *, now: int) -> Iterator[Alert]:
    """Yield methods that burn their error budget too fast, or miss their latency objective."""
    spans = {span for pair in (FAST, SLOW) for span in pair[:2]}
    burnt = {s: totals(db, since=_ago(now, s), until=now + 1, buckets=False) for s in spans}
    recent = totals(db, since=_ago(now, FAST[0]), until=now + 1)
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
                    f"{name} serves {share:.0%} of its calls within "
                    f"{objective.latency.total_seconds() * 1000:g} ms; its objective is "
                    f"{objective.latency_share:.0%}.",
                    name,
                )


def _ago(now: int, span: timedelta) -> int:
    return now - int(span.total_seconds())
