"""Evaluates alerts periodically and keeps the incidents up to date."""

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mesh import control
from mesh.console.clock import parse
from mesh.console.incidents import alert_table, call_alerts, causes
from mesh.console.incidents.alert import Alert, Situation
from mesh.console.incidents.alerts import evaluate, worst_first
from mesh.console.incidents.call_alerts import SLOW_METHOD
from mesh.console.incidents.causes import observers
from mesh.console.incidents.changes import us
from mesh.console.incidents.incident_log import QUIET, Incident, IncidentLog, unresolved
from mesh.console.incidents.observations import Observations
from mesh.console.naming import cluster_workload
from mesh.console.queries import traces
from mesh.contract.policy import Mesh
from mesh.control import ControlError

if TYPE_CHECKING:
    from mesh.console.context import Context

EVERY_SECONDS = 3.0
BEFORE_SECONDS = 15
"""How long before an incident its first call may have failed; earlier ones are of another."""
_KEYS = ("service", "workload", "process", "instance")
"""Labels that name the subject of a Prometheus alert; the first one present is used."""
_BY_NAME = {"Redcap": "redcap", "Appwrite": "identity", "Mail": "mail", "Host": "host"}


class Evaluator:
    """Evaluates alerts until cancelled, as a supervised background task."""

    def __init__(self) -> None:
        self.observed = Observations()
        self.incidents = IncidentLog()
        self.alerts: list[Alert] = []
        """The firing alerts of the console's own conditions."""
        self._began: dict[tuple[str, str], tuple[int, int]] = {}
        """When each alert began to fire, and when it was last seen firing."""
        self._over: dict[tuple[str, str], int] = {}
        """When everything that an alert reports had ended, see `Alert.over`."""

    async def resume(self, context: "Context") -> None:
        """Continue where a previous run of the console stopped; before the first evaluation."""
        self.incidents.write_to(context.writer.do)
        earlier, alive = await context.reader.run(unresolved)
        now = context.now()
        self.incidents.resume(earlier, alive=alive, now=now)
        for one in self.incidents.firing():
            self._began |= {key: (at, one.open_until) for key, at in one.began.items()}

    async def run(self, context: "Context") -> None:
        """Evaluate alerts at each interval until cancelled."""
        dependencies = causes.dependencies(context.mesh)
        while True:
            await self._once(context, dependencies)
            await asyncio.sleep(EVERY_SECONDS)

    async def _once(self, c: "Context", dependencies: Mapping[str, frozenset[str]]) -> None:
        await self._ask_runner(c, c.now())
        await self.evaluate(c, dependencies)
        for one in self.incidents.firing():
            if not one.trace_id:
                one.trace_id = await c.reader.run(partial(first_call, mesh=c.mesh, incident=one))

    async def evaluate(
        self, c: "Context", dependencies: Mapping[str, frozenset[str]] | None = None
    ) -> None:
        """Update alerts and incidents."""
        now = c.now()
        self.observed.note_scrape(c.seen, now)
        self.observed.note_clocks(c.clocks.wrong(), now)
        situation = Situation(
            mesh=c.mesh,
            seen=c.seen,
            observed=self.observed,
            clocks=c.clocks,
            certificates=c.certs,
            database=c.reader.path,
            write_fault=c.writer.fault,
            now=now,
        )
        self.alerts = await c.reader.run(lambda db: evaluate(db, situation))
        served = [alert for found in c.watch.alerts() if (alert := _served(found))]
        served = await c.reader.run(lambda db: [_recovered(db, a, now) for a in served])
        known = {(a.name, a.service) for a in self.alerts}
        others = [a for a in served if (a.name, a.service) not in known]
        firing = worst_first([*self.alerts, *others])
        began = self._beginnings(firing, now)
        needs = dependencies or causes.dependencies(c.mesh)
        grouped = causes.group(firing, needs, began, self._ended)
        self.incidents.update(grouped, self.observed.changes, now, began)

    def _beginnings(self, firing: Iterable[Alert], now: int) -> Callable[[Alert], int]:
        """Return a function for when an alert began to fire; short interruptions do not count."""
        for alert in firing:
            key = causes.key_of(alert)
            began, _ = self._began.get(key, (now, now))
            if alert.over:
                self._over.setdefault(key, now)
            elif self._over.pop(key, 0):  # Once more, perhaps for another reason.
                began = now
            self._began[key] = began, now
        self._began = {key: at for key, at in self._began.items() if at[1] > now - us(QUIET)}
        self._over = {key: at for key, at in self._over.items() if key in self._began}
        return lambda alert: self._began[causes.key_of(alert)][0]

    def _ended(self, alert: Alert) -> int:
        return self._over.get(causes.key_of(alert), sys.maxsize)

    async def _ask_runner(self, c: "Context", now: int) -> None:
        """Read audit log, canaries and exited processes from the runner of a local mesh."""
        if c.control is None:
            return
        try:
            async with asyncio.timeout(2):
                actions = await control.send_action(c.control, "audit log", by="console")
                canaries = await control.send_action(c.control, "canary status", by="console")
                exits = await control.send_action(c.control, "exits", by="console")
        except (ControlError, TimeoutError):
            return  # The runner is stopping or busy; the next evaluation retries.
        self.observed.note_actions(actions, parse)
        self.observed.note_exits(exits, parse)
        self.observed.note_canaries(canaries, now)


def first_call(db: sqlite3.Connection, mesh: Mesh, incident: Incident) -> str:
    """
    Return the id of the first trace of an incident; empty if there is none.

    It failed, was denied or was slow, as the alert says, at a method that the alerts name, or at an
    affected service.
    """
    since = incident.since - BEFORE_SECONDS * 1_000_000
    alert = incident.alert
    if alert.name == "CallersRefused":
        return _first_denied(db, alert.subject, since)
    wanted, services = traces.Search(status="error", since=since, limit=500), incident.services
    if alert.name == SLOW_METHOD:
        slow = [us(m.objective.latency) for m in mesh if m.short_name == alert.subject]
        wanted, services = replace(wanted, status="", min_duration=max(slow, default=0)), ()
    searches = (
        *(replace(wanted, rpc=rpc) for rpc in incident.rpcs),
        *(replace(wanted, service=one) for one in sorted(observers(mesh, services))),
    )
    for search in searches:
        found, _ = traces.search(db, search)
        if found:
            return str(found[-1]["traceId"])
    return ""


def _first_denied(db: sqlite3.Connection, rpc: str, since: int) -> str:
    """Return the id of the first trace with a denied call: it failed, but not the service."""
    row = db.execute(
        "SELECT t.trace_id FROM spans s JOIN names n ON n.id = s.rpc"
        " JOIN traces t ON t.id = s.trace WHERE n.text = ? AND s.start >= ?"
        " AND s.code = 'PERMISSION_DENIED' ORDER BY s.start LIMIT 1",
        (rpc, since),
    ).fetchone()
    return str(row[0].hex()) if row else ""


def _recovered(db: sqlite3.Connection, alert: Alert, now: int) -> Alert:
    """Return an alert of Prometheus, and whether the calls on which it is fail no longer."""
    if alert.name not in call_alerts.OF_FAILURES:
        return alert
    method = alert.subject.partition(".")[2]
    over = call_alerts.last_failure(db, alert.service, method, now=now // 1_000_000) > 0
    return replace(alert, over=over)


def _served(found: Mapping[str, Any]) -> Alert | None:
    """Convert an alert from Prometheus or Alertmanager; None if it is not firing."""
    if found["state"] != "firing":
        return None
    rule = alert_table.rules().get(str(found["name"]))
    if rule is not None and rule.quiet is None:
        return None  # The Prometheus heartbeat always fires.
    labels: Mapping[str, str] = found["labels"]
    name = str(found["name"])
    cluster = labels.get("envoy_cluster_name")
    if cluster and "service" not in labels:
        service = cluster_workload(cluster, labels.get("workload", ""))
    else:
        service = next((s for start, s in _BY_NAME.items() if name.startswith(start)), "")
    known = (labels[key] for key in _KEYS if labels.get(key))
    service = service or next(known, "mesh")
    subject = f"{service}.{labels['method']}" if labels.get("method") else ""
    return Alert(name, service, str(found["message"]), subject, source=str(found["source"]))
