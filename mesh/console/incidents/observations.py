"""
Recent observations of restarts, canaries, retries and load, for alerts and timelines.

A scrape shows only the current state; this keeps what changed over the last minutes.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from mesh.chassis.telemetry import names as emitted
from mesh.console.incidents.changes import LATER, SHOWN_RESTART, Change, Restart, Restarts, us
from mesh.console.intake.scraper import Seen
from mesh.console.naming import proxy_limit, workload

MAX_CHANGES = 1000
CONFIGURATION = "configuration"
CLOCK_FORGOTTEN = timedelta(minutes=5)
"""How long a clock must not have been wrong to count as stepped again."""
SHOWN_CANARY = timedelta(minutes=2)
WINDOW = timedelta(minutes=2)
_RETRY, _TOTAL = "upstream_rq_retry", "upstream_rq_total"
_OVERFLOWS = (".upstream_rq_active_overflow", ".upstream_rq_pending_overflow")


class Observations:
    """Compares each scrape of the mesh with the previous one."""

    def __init__(self) -> None:
        self._restarts = Restarts()
        self._versions: dict[str, str] = {}
        self._changes: deque[Change] = deque(maxlen=MAX_CHANGES)
        self._actions: list[Change] = []
        self._counters: dict[str, deque[tuple[int, Mapping[str, float]]]] = {}
        """For each proxy, its counters at every scrape of the last minutes."""
        self._flights: dict[str, deque[tuple[int, float]]] = {}
        self._canaries: dict[str, tuple[int, str]] = {}
        self._canary_states: dict[str, str] = {}
        self._certificates: dict[str, float] = {}
        self._configurations: dict[str, dict[str, Any]] = {}
        self._clocks: dict[str, int] = {}
        """When the clock of each process was last seen to be wrong."""

    def note_scrape(self, seen: Sequence[Seen], now: int) -> None:
        """Record the latest scrape."""
        for one in seen:
            if one.fault:
                continue
            self._restarts.note_scrape(one)
            self._compare_version(one, now)
            self._note_counters(one, now)
            self._note_load(one, now)
            self._compare_certificate(one, now)
            self._compare_configuration(one, now)

    def _compare_version(self, one: Seen, now: int) -> None:
        process = one.target.process
        before = self._versions.get(process)
        if one.version and before and one.version != before:
            what = f"deploy {process}: version {one.version} after {before}"
            self._changes.append(Change(now, what, "", workload(process)))
        if one.version:
            self._versions[process] = one.version

    def _note_counters(self, one: Seen, now: int) -> None:
        if one.proxy is None:
            return
        kept = self._counters.setdefault(one.target.process, deque())
        if not kept or kept[-1][0] != one.at:
            kept.append((one.at, one.proxy.counters))
        while len(kept) > 2 and kept[1][0] < now - us(WINDOW):
            kept.popleft()

    def _note_load(self, one: Seen, now: int) -> None:
        flight = one.gauges.get(emitted.RPC_SERVER_IN_FLIGHT)
        if flight is not None:
            kept = self._flights.setdefault(one.target.process, deque(maxlen=24))
            kept.append((now, flight))

    def _compare_certificate(self, one: Seen, now: int) -> None:
        ends = one.gauges.get(emitted.CERTIFICATE_NOT_AFTER)
        process = one.target.process
        if ends and self._certificates.get(process, ends) != ends:
            self._changes.append(
                Change(now, f"certificate of {process} replaced", "", workload(process))
            )
        if ends:
            self._certificates[process] = ends

    def _compare_configuration(self, one: Seen, now: int) -> None:
        if one.proxy is None:
            return
        process = one.target.process
        found = {name: getattr(one.proxy, name) for name in ("routes", "weights", "faults")}
        before = self._configurations.get(process, found)
        if parts := [name for name in found if found[name] != before[name]]:
            what = f"{CONFIGURATION} of {process} changed: {', '.join(parts)}"
            self._changes.append(Change(now, what, "", workload(process)))
        self._configurations[process] = found

    def note_clocks(self, wrong: Mapping[str, float], now: int) -> None:
        """Record the clocks that are wrong, with their offsets in seconds."""
        for process, offset in wrong.items():
            if now - self._clocks.get(process, 0) > us(CLOCK_FORGOTTEN):
                side = "ahead" if offset > 0 else "behind"
                what = f"clock of {process} stepped: {abs(offset):.0f} s {side}"
                self._changes.append(Change(now, what, "", workload(process)))
            self._clocks[process] = now

    def note_actions(self, items: Iterable[Mapping[str, Any]], parse: Any) -> None:
        """Record the audit log of control actions, newest first; direct calls change nothing."""
        self._actions = [
            Change(
                parse(item["at"]),
                " ".join([str(item["order"]), *_words(item.get("asked", {}))])
                + (f" (failed: {item['fault']})" if item.get("fault") else ""),
                str(item["by"]),
                str(item.get("asked", {}).get("service") or "").strip()
                or str(item.get("asked", {}).get("method") or "").partition(".")[0],
                failed=bool(item.get("fault")),
            )
            for item in items
            if item["order"] != "call"
        ]

    def note_canaries(self, canaries: Iterable[Mapping[str, Any]], now: int) -> None:
        """Record the state of the canaries."""
        for one in canaries:
            service, state = str(one["service"]), str(one["state"])
            self._canary_states[service] = state
            bad = one.get("verdict") == "bad"
            if not bad:
                if state in {"running", "starting"}:
                    self._canaries.pop(service, None)
                continue
            at, _ = self._canaries.get(service, (now, ""))  # An abort does not begin again.
            verb = "failed and was aborted" if state.startswith("aborted") else "fails"
            message = (
                f"The canary of {service} {verb}: {one.get('canary')};"
                f" the stable version: {one.get('stable')}."
            )
            self._canaries[service] = now if state == "running" else at, message

    def canary_runs(self, service: str) -> bool:
        """Return whether the canary of *service* should be up; always true without a runner."""
        return self._canary_states.get(service, "running") == "running"

    def failing_canaries(self, now: int) -> dict[str, str]:
        """Return the services whose canary is failing or was just aborted, each with a summary."""
        return {
            service: message
            for service, (at, message) in self._canaries.items()
            if at > now - us(SHOWN_CANARY)
        }

    def note_exits(self, items: Iterable[Mapping[str, Any]], parse: Callable[[str], int]) -> None:
        """Record how processes exited, as the runner reports it."""
        self._restarts.note_exits(items, parse)

    def unplanned_restart(self, process: str, now: int) -> str:
        """Return a phrase if *process* restarted recently without a control action."""
        latest = next(iter(self._restarts.of(process)), None)
        if latest is None or now - latest.at > us(SHOWN_RESTART) or self._plan(latest):
            return ""
        return f"{self._restarts.ending(latest)} and was restarted"

    def restarts(self, process: str) -> list[tuple[int, str]]:
        """Return when (microseconds) and why a process was restarted, newest first."""
        return [(one.at, self._reason(one)) for one in self._restarts.of(process)]

    def deployment(self, service: str) -> Change | None:
        """Return the last control action or change of version that replaced a service."""
        known = (one for one in (*self._actions, *self._changes) if one.deploys(service))
        return max(known, key=lambda one: one.at, default=None)

    def _plan(self, restart: Restart) -> Change | None:
        return next((action for action in self._actions if action.plans(restart)), None)

    def _restarted(self, restart: Restart) -> Change:
        if plan := self._plan(restart):
            return Change(restart.at, f"{restart.process} replaced", plan.who)
        return Change(restart.at, f"{restart.process} {self._restarts.ending(restart)}", "")

    def _reason(self, restart: Restart) -> str:
        if plan := self._plan(restart):
            return f"{plan.what} by {plan.who}"
        return self._restarts.ending(restart)

    def grown(self, span: timedelta, now: int) -> Iterator[tuple[str, dict[str, float]]]:
        """Yield each available proxy with how much its counters grew within *span*."""
        for process, kept in self._counters.items():
            if kept[-1][0] < now - us(timedelta(seconds=30)):
                continue
            before = [counters for at, counters in kept if at <= now - us(span)]
            first, last = (before[-1] if before else kept[0][1]), kept[-1][1]
            began_anew = any(last.get(name, 0) < value for name, value in first.items())
            known = {} if began_anew else first
            yield process, {name: value - known.get(name, 0) for name, value in last.items()}

    def retries(self, span: timedelta, now: int) -> Iterator[tuple[str, str, float, float]]:
        """Yield proxy, cluster, retries and total requests within *span*."""
        for process, counters in self.grown(span, now):
            for name, retried in counters.items():
                if retried and name.endswith(f".{_RETRY}"):
                    total = counters.get(name.replace(_RETRY, _TOTAL), 0.0)
                    yield process, name.split(".")[1], retried, max(total, retried)

    def refused(self, span: timedelta, now: int) -> Iterator[tuple[str, str, float]]:
        """Yield process, limit and number of requests that proxies rejected above their limits."""
        for process, counters in self.grown(span, now):
            for name, count in counters.items():
                if count and (limit := proxy_limit(name)):
                    yield process, limit, count

    def overflows(self, span: timedelta, now: int) -> Iterator[tuple[str, str, int]]:
        """Yield proxy, cluster and number of calls that its open circuit breaker rejected."""
        for process, counters in self.grown(span, now):
            found = Counter[str]()
            for name, count in counters.items():
                if name.endswith(_OVERFLOWS) and not proxy_limit(name):
                    found[name.split(".")[1]] += round(count)
            for cluster, rejected in found.items():
                yield process, cluster, rejected

    def in_flight(self, now: int) -> dict[str, float]:
        """Return the mean number of calls in flight at the busiest replica of each service."""
        found: dict[str, float] = {}
        for process, kept in self._flights.items():
            latest = [value for at, value in kept if at > now - us(timedelta(seconds=20))]
            if len(latest) >= 2:
                name = workload(process)
                found[name] = max(found.get(name, 0.0), sum(latest) / len(latest))
        return found

    def changes(self, since: int, until: int) -> list[Change]:
        """Return the changes between two times, newest first."""
        restarts = map(self._restarted, self._restarts.every())
        noted = (c for c in self._changes if not self._is_applied_action(c))
        every = [*noted, *self._actions, *restarts]
        return sorted((c for c in every if since <= c.at <= until), key=lambda c: -c.at)

    def _is_applied_action(self, change: Change) -> bool:
        """Return whether a control action, which names who did it, explains a configuration."""
        return change.what.startswith(CONFIGURATION) and any(
            one.at - us(LATER) < change.at < one.at + us(LATER) for one in self._actions
        )


_UNITS = {"percent": " %", "weight": " %", "delay_ms": " ms"}


def _words(asked: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a control action was asked to do, each value with its name and unit."""
    for name, value in asked.items():
        if value in (None, "", False):
            continue
        if name in {"method", "service"}:
            yield str(value)
        else:
            shown = "" if value is True else f"{value:g}" if isinstance(value, float) else value
            yield f"{name.removesuffix('_ms')} {shown}{_UNITS.get(name, '')}".rstrip()
