"""
What the console has observed over time: restarts, canaries, retries, load; for alerts and timeline.

Scrapes show only the present. This keeps the last minutes of what changed between them.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mesh.console.intake.scraper import Seen
from mesh.console.naming import proxy_limit, workload

REMEMBERED = timedelta(hours=24)
MAX_CHANGES = 1000
PLANNED = timedelta(minutes=3)
"""How long after a control action a restart counts as its effect."""
SHOWN_RESTART = timedelta(minutes=2)
"""How long an unplanned restart keeps its alert: a process that dies again has no time to."""
SHOWN_CANARY = timedelta(minutes=2)
WINDOW = timedelta(minutes=2)
READING_SECONDS = 5.0
"""The longest time that a scrape of a proxy may take without counting as a restart."""
_RETRY, _TOTAL = "upstream_rq_retry", "upstream_rq_total"
_PLANNING = ("restart", "canary promote", "certs", "rotate", "deploy")
_PLANNING_CANARY = (*_PLANNING, "canary")
"""Control actions that replace processes of a service, and those of its canary."""


@dataclass(frozen=True)
class Change:
    """Something that changed in the mesh: when (microseconds), what, and who did it."""

    at: int
    what: str
    who: str
    service: str = ""


def _us(span: timedelta) -> int:
    return int(span.total_seconds() * 1e6)


class Observations:
    """Compares each look at the mesh with the one before."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._uptimes: dict[str, tuple[float, float]] = {}
        """Of each proxy its uptime at the last scrape, and when that ended; seconds."""
        self._restarts: dict[str, Change] = {}
        self._changes: deque[Change] = deque(maxlen=MAX_CHANGES)
        self._actions: list[Change] = []
        self._counters: dict[str, deque[tuple[int, Mapping[str, float]]]] = {}
        """Of each proxy its counters at every scrape of the last minutes."""
        self._flights: dict[str, deque[tuple[int, float]]] = {}
        self._canaries: dict[str, tuple[int, str]] = {}
        self._canary_states: dict[str, str] = {}
        self._certificates: dict[str, float] = {}

    def look(self, seen: Sequence[Seen], now: int) -> None:
        """Take in what was scraped last."""
        for one in seen:
            if one.fault:
                continue
            self._compare_start(one, now)
            self._note_counters(one, now)
            self._note_load(one, now)
            self._compare_certificate(one, now)

    def _compare_start(self, one: Seen, now: int) -> None:
        process = one.target.process
        started = one.gauges.get("process_start_time_seconds", 0.0)
        before = self._started.get(process)
        again = bool(started and before and started > before + 3)
        if one.proxy:
            uptime, at = one.proxy.uptime_seconds, one.at / 1e6
            started = at - uptime
            known = self._uptimes.get(process)
            # When an Envoy answered is known less precisely than how long it has run: a busy
            # machine takes seconds from its answer to the end of the scrape.
            again = known is not None and (
                uptime < known[0] or uptime + READING_SECONDS < at - known[1]
            )
            self._uptimes[process] = uptime, at
        if again:
            kind = "proxy" if one.target.is_envoy else "process"
            change = Change(
                int(started * 1e6), f"{kind} {process} restarted", "", workload(process)
            )
            self._restarts[process] = change
            self._changes.append(change)
        if started:
            self._started[process] = started

    def _note_counters(self, one: Seen, now: int) -> None:
        if one.proxy is None:
            return
        kept = self._counters.setdefault(one.target.process, deque())
        if not kept or kept[-1][0] != one.at:
            kept.append((one.at, one.proxy.counters))
        while len(kept) > 2 and kept[1][0] < now - _us(WINDOW):
            kept.popleft()

    def _note_load(self, one: Seen, now: int) -> None:
        flight = one.gauges.get("amarre_rpc_server_in_flight")
        if flight is not None:
            kept = self._flights.setdefault(one.target.process, deque(maxlen=24))
            kept.append((now, flight))

    def _compare_certificate(self, one: Seen, now: int) -> None:
        ends = one.gauges.get("amarre_certificate_not_after_timestamp_seconds")
        process = one.target.process
        if ends and self._certificates.get(process, ends) != ends:
            self._changes.append(
                Change(now, f"certificate of {process} replaced", "", workload(process))
            )
        if ends:
            self._certificates[process] = ends

    def note_actions(self, items: Iterable[Mapping[str, Any]], parse: Any) -> None:
        """Take in the audit log of control actions, newest first."""
        self._actions = [
            Change(
                parse(item["at"]),
                " ".join([str(item["order"]), *(f"{v}" for v in item.get("asked", {}).values())])
                + (f" (failed: {item['fault']})" if item.get("fault") else ""),
                str(item["by"]),
                str(item.get("asked", {}).get("service") or "").strip()
                or str(item.get("asked", {}).get("method") or "").partition(".")[0],
            )
            for item in items
        ]

    def note_canaries(self, canaries: Iterable[Mapping[str, Any]], now: int) -> None:
        """Take in the state of the canaries."""
        for one in canaries:
            service, state = str(one["service"]), str(one["state"])
            self._canary_states[service] = state
            bad = one.get("verdict") == "bad"
            if not bad:
                if state in {"running", "starting"}:
                    self._canaries.pop(service, None)
                continue
            known = self._canaries.get(service)
            running = state == "running"
            if known is None or running:
                message = (
                    f"The canary of {service} fails: {one.get('canary')};"
                    f" the stable version: {one.get('stable')}."
                )
                self._canaries[service] = now, message

    def canary_runs(self, service: str) -> bool:
        """Say whether the canary of *service* is to answer; without a runner every canary is."""
        return self._canary_states.get(service, "running") == "running"

    def failing_canaries(self, now: int) -> dict[str, str]:
        """Return services whose canary fails or was just aborted, with a sentence each."""
        return {
            service: message
            for service, (at, message) in self._canaries.items()
            if at > now - _us(SHOWN_CANARY)
        }

    def unplanned_restart(self, process: str, now: int) -> str:
        """Return a phrase when *process* was restarted lately and nobody asked for it."""
        change = self._restarts.get(process)
        if change is None or now - change.at > _us(SHOWN_RESTART):
            return ""
        canary = process.removesuffix("-envoy").endswith("-canary")
        planning = _PLANNING_CANARY if canary else _PLANNING
        planned = any(
            change.at - _us(PLANNED) < action.at <= change.at + _us(timedelta(seconds=30))
            and action.what.startswith(planning)
            and action.service in ("", change.service)
            for action in self._actions
        )
        return "" if planned else "ended unexpectedly and was restarted"

    def restarts(self, process: str) -> list[Change]:
        """Return the restarts of a process that were observed, the latest first."""
        what = {f"process {process} restarted", f"proxy {process} restarted"}
        return [one for one in reversed(self._changes) if one.what in what]

    def grown(self, span: timedelta, now: int) -> Iterator[tuple[str, dict[str, float]]]:
        """Yield each proxy that answers, with how much its counters grew within *span*."""
        for process, kept in self._counters.items():
            if kept[-1][0] < now - _us(timedelta(seconds=30)):
                continue
            before = [counters for at, counters in kept if at <= now - _us(span)]
            first, last = (before[-1] if before else kept[0][1]), kept[-1][1]
            began_anew = any(last.get(name, 0) < value for name, value in first.items())
            known = {} if began_anew else first
            yield process, {name: value - known.get(name, 0) for name, value in last.items()}

    def retries(self, now: int) -> Iterator[tuple[str, str, float, float]]:
        """Yield proxy, cluster, retried and all requests of the last minutes."""
        for process, counters in self.grown(WINDOW, now):
            for name, retried in counters.items():
                if retried and name.endswith(f".{_RETRY}"):
                    total = counters.get(name.replace(_RETRY, _TOTAL), 0.0)
                    yield process, name.split(".")[1], retried, max(total, retried)

    def refused(self, span: timedelta, now: int) -> Iterator[tuple[str, str, float]]:
        """Yield process, limit and count of requests that proxies refused above their limits."""
        for process, counters in self.grown(span, now):
            for name, count in counters.items():
                if count and (limit := proxy_limit(name)):
                    yield process, limit, count

    def in_flight(self, now: int) -> dict[str, float]:
        """Return the mean of the last readings of calls in flight, of the fullest replica."""
        found: dict[str, float] = {}
        for process, kept in self._flights.items():
            latest = [value for at, value in kept if at > now - _us(timedelta(seconds=20))]
            if len(latest) >= 2:
                name = workload(process)
                found[name] = max(found.get(name, 0.0), sum(latest) / len(latest))
        return found

    def changes(self, since: int, until: int) -> list[Change]:
        """Return what changed in a time, the latest first."""
        every = [*self._changes, *self._actions]
        return sorted((c for c in every if since <= c.at <= until), key=lambda c: -c.at)
