"""
Incidents: one per cause, from its first alert until all its alerts have resolved.

They are updated every few seconds, held in memory and written to the store, so that they can be
looked up within the retention period.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from mesh.console.clock import parse, rfc3339
from mesh.console.incidents import alert_table, runbooks
from mesh.console.incidents.alert import STARTING, Alert
from mesh.console.incidents.causes import (
    SOONER,
    Cause,
    explains,
    has_ended,
    is_nearer,
    key_of,
    outranks,
)
from mesh.console.incidents.changes import Change, us

QUIET = timedelta(seconds=20)
"""How long all alerts of an incident must be inactive before it is resolved."""
AGAIN = STARTING + QUIET
"""How long after a restart of the console alerts may take to fire again."""
INTERRUPTED = timedelta(minutes=5)
"""After a longer interruption of the console, nobody knows whether its incidents went on."""
BEFORE = timedelta(minutes=15)
"""How far back from its start an incident shows changes."""
MAX_KEPT = 500
MAX_CHANGES = 20
"""The number of changes that an incident shows."""
Key = tuple[str, str]
"""Name and service of an alert."""
Write = Callable[[Callable[[Any, sqlite3.Connection], None]], bool]


@dataclass
class Incident:
    """One cause with its effects; times in microseconds, ``ended`` 0 while it fires."""

    id: str
    since: int
    seen: int
    alert: Alert
    effects: tuple[Alert, ...] = ()
    changes: list[Change] = field(default_factory=list)
    trace_id: str = ""
    ended: int = 0
    before_restart: Sequence[Change] = ()
    """Changes recorded by an earlier run of the console."""
    open_until: int = 0
    """Not resolved before: after a restart of the console, alerts take a while to fire again."""
    began: dict[Key, int] = field(default_factory=dict)
    """When each alert began to fire."""
    cause_seen: int = 0
    """When the cause itself was last seen firing."""
    explained: Alert | None = None
    """The last alert of the console itself: it names callers, processes and reasons."""

    @property
    def keys(self) -> set[tuple[str, str]]:
        """Name and service of each alert."""
        return {(a.name, a.service) for a in (self.alert, *self.effects)}

    @property
    def services(self) -> tuple[str, ...]:
        """Every affected service, that of the cause first."""
        return tuple(dict.fromkeys(a.service for a in (self.alert, *self.effects)))

    @property
    def rpcs(self) -> list[str]:
        """The methods that the alerts name."""
        subjects = (a.subject for a in (self.alert, *self.effects))
        return list(dict.fromkeys(s for s in subjects if "." in s))

    @property
    def has_recovered(self) -> bool:
        """Whether everything that its alerts report has ended, but they have not cleared yet."""
        return all(map(has_ended, (self.alert, *self.effects)))

    @property
    def severity(self) -> str:
        """``page`` if the cause pages someone, or one of its effects does; otherwise ``ticket``."""
        firing = (one for one in self.effects if not has_ended(one))
        return (
            "page" if "page" in {self.alert.severity, *(a.severity for a in firing)} else "ticket"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the incident as the API shows it."""
        # Other processes or methods with the same alert are part of the cause.
        effects = dict.fromkeys(key_of(a) for a in self.effects if key_of(a) != key_of(self.alert))
        return {
            "id": self.id,
            "state": "resolved" if self.ended else "firing",
            "since": rfc3339(self.since),
            "resolvedAt": rfc3339(self.ended) if self.ended else "",
            "severity": self.severity,
            "source": self.alert.source,
            "recovered": self.has_recovered,
            "cause": {
                "alert": self.alert.name,
                "service": self.alert.service,
                "summary": self.alert.message,
                "since": self._began(key_of(self.alert)),
            },
            "effects": [
                {"alert": name, "service": service, "since": self._began((name, service))}
                for name, service in effects
            ],
            "messages": list(dict.fromkeys(a.message for a in self.effects if a.message))[:20],
            "rpcs": self.rpcs,
            "changes": [
                {"at": rfc3339(c.at), "what": c.what, "who": c.who, "service": c.service}
                for c in self.changes
            ],
            "traceId": self.trace_id,
            "runbook": self._runbook(),
        }

    def _began(self, key: Key) -> str:
        return rfc3339(self.began.get(key, self.since))

    def _runbook(self) -> str:
        if self.alert.name not in alert_table.rules():
            return ""
        return f"{runbooks.PATH}/{alert_table.runbook(self.alert.name)}"


class IncidentLog:
    """The incidents of this console; not safe for concurrent use."""

    def __init__(self) -> None:
        self._write: Write = lambda work: False
        self._incidents: dict[str, Incident] = {}
        self._stored: dict[str, str] = {}
        self._merged: dict[str, str] = {}
        """The incident into which each merged one went."""

    def write_to(self, write: Write) -> None:
        """Start writing incidents with *write*."""
        self._write = write

    def resume(self, earlier: Iterable[Mapping[str, Any]], *, alive: int, now: int) -> None:
        """
        Continue the firing incidents of a previous run of the console.

        Their alerts fire again within a minute, or they have ended. After a long interruption,
        nobody knows: they ended when that run did.

        Args:
            earlier: The incidents, as the API shows them.
            alive: When the previous run was last known to be alive.
            now: The current time.
        """
        for body in earlier:
            one = _restored(body, now)
            if now - alive > us(INTERRUPTED):
                one.ended = max(alive, one.since)
                self._store(one)
            else:
                self._incidents[one.id] = one

    def firing(self) -> list[Incident]:
        """Return the firing incidents: pages first, then the oldest; recovered ones last."""
        found = [one for one in self._incidents.values() if not one.ended]
        return sorted(found, key=lambda one: (one.has_recovered, one.severity != "page", one.since))

    def current(self, key: str) -> str:
        """Return the id of the incident into which the one with the id *key* was merged."""
        while key in self._merged:
            key = self._merged[key]
        return key

    def update(
        self,
        causes: Iterable[Cause],
        changes: Callable[[int, int], list[Change]],
        now: int,
        began: Callable[[Alert], int] | None = None,
    ) -> None:
        """Update the incidents with the causes of the alerts that fire at *now*."""
        found = list(causes)
        own = frozenset(key_of(cause.alert) for cause in found)
        for cause in found:
            self._take(cause, now, began or (lambda _: now), own)
        for one in self.firing():
            recent = changes(one.since - us(BEFORE), max(one.since, one.seen))
            one.changes = sorted(
                (*recent, *(c for c in one.before_restart if not any(map(c.equals, recent)))),
                key=lambda change: -change.at,
            )[:MAX_CHANGES]
            if one.seen < now - us(QUIET) and one.open_until < now:
                one.ended = one.seen
            self._store(one)
        for key in list(self._incidents)[:-MAX_KEPT]:
            del self._incidents[key]

    def _take(
        self, cause: Cause, now: int, began: Callable[[Alert], int], own: Container[Key]
    ) -> None:
        """Update the incident of *cause*, or add one; *own* are all causes."""
        keys = {(a.name, a.service) for a in (cause.alert, *cause.effects)}
        same = [
            one
            for one in self.firing()
            # What begins after everything of an incident has ended is another one.
            if not (one.has_recovered and not has_ended(cause.alert))
            or key_of(one.alert) == key_of(cause.alert)
            if (one.alert.name, one.alert.service) in keys
            or (cause.alert.name, cause.alert.service) in one.keys
            # A new alert on the same service continues an incident that is not resolved yet, unless
            # it is the cause of something that has begun since.
            or (
                one.seen < now
                and key_of(one.alert) not in own
                and explains(one.alert, cause.alert, {})
                and not (one.since < now - us(SOONER) and is_nearer(cause.alert, one.alert))
            )
        ]
        if same:
            # A cause that explains an earlier alert takes over its incident and absorbs the others.
            kept = min(same, key=lambda one: one.since)
            for other in same:
                if other is not kept:
                    del self._incidents[other.id]
                    self._forget(other.id)
                    self._merged[other.id] = kept.id
            while len(self._merged) > MAX_KEPT:
                del self._merged[next(iter(self._merged))]
        else:
            key = f"{cause.alert.name} {cause.alert.service} {now}"
            kept = Incident(hashlib.sha256(key.encode()).hexdigest()[:12], now, now, cause.alert)
            self._incidents[kept.id] = kept
        alerts = (cause.alert, *cause.effects)
        kept.began = {key_of(kept.alert): kept.began.get(key_of(kept.alert), kept.since)} | {
            key_of(one): began(one) for one in alerts
        }
        kept.seen = now
        if _keeps_its_cause(kept, cause, now, own):
            kept.effects = alerts
            return
        current = next((a for a in alerts if key_of(a) == key_of(kept.alert)), cause.alert)
        kept.alert = cause.alert if outranks(cause.alert, current) else current
        kept.effects = tuple(one for one in alerts if one != kept.alert)
        kept.cause_seen = now
        if kept.alert.source == "console":
            kept.explained = kept.alert
        elif kept.explained and key_of(kept.explained) == key_of(kept.alert):
            # Prometheus clears an alert later, and says less about it.
            message = f"{kept.alert.message} Last found by the console: {kept.explained.message}"
            kept.alert = replace(kept.alert, message=message, subject=kept.explained.subject)

    def _store(self, one: Incident) -> None:
        found = one.to_json()
        text = json.dumps(found)
        if self._stored.get(one.id) == text:
            return
        row = one.id, one.since, one.ended, text

        def insert(_: Any, db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO incidents VALUES (?,?,?,?)", row)

        if self._write(insert):
            self._stored[one.id] = text

    def _forget(self, key: str) -> None:
        self._stored.pop(key, None)

        def delete(_: Any, db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM incidents WHERE id = ?", (key,))

        self._write(delete)


def _keeps_its_cause(kept: Incident, cause: Cause, now: int, own: Container[Key]) -> bool:
    """
    Return whether an incident is still named after an alert that is not among those of *cause*.

    An alert near its threshold comes and goes every few seconds, and the incident would change its
    name each time.
    """
    key = key_of(kept.alert)
    return (
        key not in own
        and key not in {key_of(one) for one in (cause.alert, *cause.effects)}
        and now - kept.cause_seen <= us(QUIET)
        and not outranks(cause.alert, kept.alert)
    )


def stored(db: sqlite3.Connection, *, since: int, until: int) -> list[dict[str, Any]]:
    """Return the incidents that fired between two times (microseconds), newest first."""
    rows = db.execute(
        "SELECT body FROM incidents WHERE since <= ? AND (ended = 0 OR ended >= ?)"
        " ORDER BY since DESC LIMIT ?",
        (until, since, MAX_KEPT),
    )
    return [json.loads(row[0]) for row in rows]


def one(db: sqlite3.Connection, key: str) -> dict[str, Any] | None:
    """Return the incident with an id; None if it is not stored."""
    row = db.execute("SELECT body FROM incidents WHERE id = ?", (key,)).fetchone()
    return dict(json.loads(row[0])) if row else None


def unresolved(db: sqlite3.Connection) -> tuple[list[dict[str, Any]], int]:
    """Return the incidents that a previous run left firing, and when it was last alive."""
    rows = db.execute("SELECT body FROM incidents WHERE ended = 0")
    (alive,) = db.execute(
        "SELECT coalesce(max(seen), 0) FROM runs WHERE id < (SELECT max(id) FROM runs)"
    ).fetchone()
    return [json.loads(row[0]) for row in rows], alive


def _restored(body: Mapping[str, Any], now: int) -> Incident:
    """Return the incident that was stored as *body*, as if its alerts were seen just *now*."""
    cause, source = body["cause"], body.get("source", "console")
    subject = next(iter(body["rpcs"]), "")
    alert = Alert(cause["alert"], cause["service"], cause["summary"], subject, source=source)
    effects = tuple(Alert(one["alert"], one["service"], "") for one in body["effects"])
    return Incident(
        id=body["id"],
        since=parse(body["since"]),
        seen=now,
        open_until=now + us(AGAIN),
        alert=alert,
        effects=effects,
        before_restart=[
            Change(parse(one["at"]), one["what"], one["who"], one.get("service", ""))
            for one in body["changes"]
        ],
        trace_id=body["traceId"],
        began={
            (one["alert"], one["service"]): parse(one.get("since", body["since"]))
            for one in (cause, *body["effects"])
        },
        explained=alert if source == "console" else None,
    )
