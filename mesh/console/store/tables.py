"""
Inserting rows and evicting the oldest ones.

Every function runs inside a transaction on the writer thread.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence

from mesh.console import naming
from mesh.console.clock import Now
from mesh.console.intake.prometheus_text import Exemplar
from mesh.console.store.call_edges import Edge, Edges
from mesh.console.store.intake_counters import IntakeCounters
from mesh.console.store.interned import Names, SeriesIds
from mesh.console.store.rows import Log, Point, Span

CHUNK = 2_000
"""The number of rows evicted at once, which keeps transactions short."""
SPAN_SIZE = "(300 + length(attributes) + length(events))"
LOG_SIZE = "(120 + length(body) + length(attributes))"

_INSERT_SPAN = (
    "INSERT OR IGNORE INTO spans (trace, span_id, parent_id, service, instance, name, rpc, kind,"
    " proxy, start, duration, error, code, message, probe, attributes, events)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
# A trace is named by the first process that served it, rather than by its proxy.
_BETTER = "(excluded.root > root OR (excluded.root = root AND excluded.named_at < named_at))"
_UPSERT_TRACE = (
    "INSERT INTO traces (trace_id, start, finish, spans, errors, probe, root, named_at, name,"  # noqa: S608 - fixed text
    " service, rpc, code) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
    " ON CONFLICT (trace_id) DO UPDATE SET start = min(start, excluded.start),"
    " finish = max(finish, excluded.finish), spans = spans + excluded.spans,"
    " errors = errors + excluded.errors, probe = min(probe, excluded.probe),"
    f" name = iif({_BETTER}, excluded.name, name), rpc = iif({_BETTER}, excluded.rpc, rpc),"
    f" service = iif({_BETTER}, excluded.service, service),"
    f" code = iif({_BETTER}, excluded.code, code),"
    f" named_at = iif({_BETTER}, excluded.named_at, named_at),"
    " root = max(root, excluded.root) RETURNING id"
)


def _enough(excess: int, count: int, size: int) -> int:
    """Return how many rows of average size free *excess* bytes, at most one chunk."""
    return min(CHUNK, excess * count // size + 1)


def _rank(span: Span) -> int:
    """Return a span's rank for naming its trace: servers before clients, proxies last."""
    if span.proxy:
        return int(not span.parent_id)
    return 4 if not span.parent_id else 3 if span.kind == naming.SERVER else 2


class Tables:
    """The tables, with what is cached about them between batches."""

    def __init__(self, db: sqlite3.Connection, intake: IntakeCounters, now: Now) -> None:
        self._db = db
        self._intake = intake
        self._now = now
        self._edges = Edges()
        self._names = Names(db, intake)
        self._series = SeriesIds(db, intake)
        self._services: dict[str, int] = {}
        self.load()

    def load(self) -> None:
        """Load the cache from the file, at the start and after a rollback."""
        self._names.load()
        self._series.load()
        self._services = {t: i for i, t in self._db.execute("SELECT id, name FROM services")}

    def add_spans(self, spans: Sequence[Span]) -> None:
        """Write spans, their traces and the edges derived from them; duplicates are ignored."""
        by_trace = self._without_duplicates(spans)
        fresh = [span for members in by_trace.values() for span in members]
        if not fresh:
            return
        rows, links = [], list[tuple[int | bytes | str, ...]]()
        for trace_id, members in by_trace.items():
            trace = self._trace(trace_id, members)
            links += [(trace, span.span_id, *link) for span in members for link in span.links]
            rows += [
                (
                    trace,
                    span.span_id,
                    span.parent_id,
                    self._service(span.service),
                    span.instance,
                    self._names.id(span.name, span.service),
                    self._names.id(span.rpc, span.service),
                    *span[7:14],
                    span.probe,
                    span.attributes,
                    span.events,
                )
                for span in members
            ]
        self._db.executemany(_INSERT_SPAN, rows)
        self._db.executemany("INSERT OR IGNORE INTO links VALUES (?,?,?,?,?)", links)
        self._count(fresh, "spans", "span_bytes", latest=max(s.start for s in fresh))
        self._add_edges(self._edges.see(fresh, now=self._now()))

    def _without_duplicates(self, spans: Sequence[Span]) -> dict[bytes, list[Span]]:
        """
        Return the spans by trace, without duplicates: senders may resend a batch.

        Source:
            OTLP specification, Duplicate Data: (trace id, span id) identifies a span.
        """
        found: dict[bytes, dict[bytes, Span]] = {}
        for span in spans:
            found.setdefault(span.trace_id, {}).setdefault(span.span_id, span)
        for trace_id, members in found.items():
            row = self._db.execute(
                "SELECT id FROM traces WHERE trace_id = ?", (trace_id,)
            ).fetchone()
            for span_id in tuple(members) if row else ():
                if self._db.execute(
                    "SELECT 1 FROM spans WHERE trace = ? AND span_id = ?", (row[0], span_id)
                ).fetchone():
                    del members[span_id]
        fresh = {trace_id: list(members.values()) for trace_id, members in found.items() if members}
        self._intake.drop("traces", "duplicate", count=len(spans) - sum(map(len, fresh.values())))
        return fresh

    def _trace(self, trace_id: bytes, members: Sequence[Span]) -> int:
        first = min(members, key=lambda span: (-_rank(span), span.start))
        (key,) = self._db.execute(
            _UPSERT_TRACE,
            (
                trace_id,
                min(span.start for span in members),
                max(span.start + span.duration for span in members),
                len(members),
                sum(span.error for span in members),
                min(span.probe for span in members),
                _rank(first),
                first.start,
                self._names.id(first.name, first.service),
                self._service(first.service),
                self._names.id(first.rpc, first.service),
                first.code,
            ),
        ).fetchone()
        return int(key)

    def _add_edges(self, edges: Iterable[Edge]) -> None:
        calls: Counter[tuple[int, str, str, str]] = Counter()
        errors: Counter[tuple[int, str, str, str]] = Counter()
        refused: Counter[tuple[int, str, str, str]] = Counter()
        for edge in edges:
            calls[edge[:4]] += 1
            errors[edge[:4]] += edge.error
            refused[edge[:4]] += edge.refused
        self.count_edges(
            [(*key, 0, count, errors[key], refused[key]) for key, count in calls.items()]
        )

    def count_edges(self, rows: Iterable[tuple[int, str, str, str, int, int, int, int]]) -> None:
        """Add to edges: minute, source, target, rpc, counted, calls, errors, refused."""
        self._db.executemany(
            "INSERT INTO edges VALUES (?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET"
            " calls = calls + excluded.calls, errors = errors + excluded.errors,"
            " refused = refused + excluded.refused",
            rows,
        )

    def count_calls(self, rows: Iterable[tuple[int | float | str, ...]]) -> None:
        """Add to calls: slot, process, service, method, code, reason, calls, seconds, buckets."""
        self._db.executemany("INSERT INTO calls VALUES (?,?,?,?,?,?,?,?,?)", rows)

    def add_exemplars(self, found: Iterable[Exemplar]) -> None:
        """Write exemplars, keeping the last of each minute and bucket to bound their number."""
        self._db.executemany(
            "INSERT OR REPLACE INTO exemplars VALUES (?,?,?,?,?,?,?,?)",
            [
                (
                    *one.key[:2],
                    one.at // 60_000_000,
                    one.key[2],
                    *(one.bound, one.at, one.seconds, one.trace_id),
                )
                for one in found
            ],
        )

    def add_logs(self, logs: Sequence[Log]) -> None:
        """Write log records."""
        self._db.executemany(
            "INSERT INTO logs (at, service, instance, level, trace_id, span_id, body, attributes)"
            " VALUES (?,?,?,?,?,?,?,?)",
            [(log.at, self._service(log.service), *log[2:]) for log in logs],
        )
        self._count(logs, "logs", "log_bytes", latest=max(log.at for log in logs))

    def add_points(self, points: Sequence[Point]) -> None:
        """Write points of time series."""
        rows = []
        for point in points:
            series = self._series.id(point)
            if series:
                rows.append((series, *point[3:7], point.started))
        self._db.executemany("INSERT OR REPLACE INTO points VALUES (?,?,?,?,?,?)", rows)

    def _count(
        self, rows: Sequence[Span] | Sequence[Log], count: str, size: str, *, latest: int
    ) -> None:
        counts: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for row in rows:
            counts[row.service] += 1
            sizes[row.service] += row.size
        self._db.executemany(
            f"UPDATE services SET {count} = {count} + ?, {size} = {size} + ?,"  # noqa: S608 - fixed names
            " last = max(last, ?) WHERE id = ?",
            [(counts[s], sizes[s], latest, self._service(s)) for s in counts],
        )

    def _service(self, name: str) -> int:
        known = self._services.get(name)
        if known is None:
            known = self._db.execute("INSERT INTO services (name) VALUES (?)", (name,)).lastrowid
            self._services[name] = known or 0
        return known or 0

    def evict(self, *, service_bytes: int, oldest: int) -> bool:
        """
        Delete one chunk of the rows that exceed the quota or the retention period.

        Args:
            service_bytes: The quota of each service; its oldest rows are deleted.
            oldest: Rows before this time, in microseconds, are deleted.

        Returns:
            Whether there is more to delete.
        """
        more = False
        for service, spans, span_bytes, logs, log_bytes in self._db.execute(
            "SELECT id, spans, span_bytes, logs, log_bytes FROM services"
        ).fetchall():
            excess = span_bytes + log_bytes - service_bytes
            if excess > 0 and span_bytes >= log_bytes:
                count = _enough(excess, spans, span_bytes)
                more |= self._evict_spans("service = ?", service, count)
            elif excess > 0:
                count = _enough(excess, logs, log_bytes)
                more |= self._evict_logs("service = ?", service, count)
        more |= self._evict_spans("start < ?", oldest)
        more |= self._evict_logs("at < ?", oldest)
        minute, slot = oldest // 60_000_000, oldest // 1_000_000
        self._db.execute("DELETE FROM edges WHERE minute < ?", (minute,))
        self._db.execute("DELETE FROM calls WHERE slot < ?", (slot,))
        self._db.execute("DELETE FROM exemplars WHERE minute < ?", (minute,))
        self._db.execute("DELETE FROM incidents WHERE ended > 0 AND ended < ?", (oldest,))
        self._forget_services(oldest)
        self._names.forget(self._now())
        return more

    def _forget_services(self, oldest: int) -> None:
        """Delete services that have sent nothing since *oldest*."""
        for (name,) in self._db.execute(
            "DELETE FROM services WHERE spans = 0 AND logs = 0 AND last < ?"
            " AND id NOT IN (SELECT service FROM traces) RETURNING name",
            (oldest,),
        ).fetchall():
            self._services.pop(name, None)

    def evict_oldest(self) -> None:
        """Delete a chunk of the largest service."""
        found = self._db.execute(
            "SELECT id FROM services ORDER BY span_bytes + log_bytes DESC LIMIT 1"
        ).fetchone()
        if found:
            self._evict_spans("service = ?", found[0])
            self._evict_logs("service = ?", found[0])

    def _evict_spans(self, where: str, value: int, count: int = CHUNK) -> bool:
        gone = self._db.execute(
            f"DELETE FROM spans WHERE id IN (SELECT id FROM spans WHERE {where}"  # noqa: S608 - fixed
            f" ORDER BY start LIMIT {count}) RETURNING trace, service, {SPAN_SIZE}",
            (value,),
        ).fetchall()
        self._uncount(((row[1], row[2]) for row in gone), "spans", "span_bytes")
        self._db.executemany(
            "DELETE FROM traces WHERE id = ?"
            " AND NOT EXISTS (SELECT 1 FROM spans WHERE trace = traces.id)",
            {(row[0],) for row in gone},
        )
        self._db.executemany(
            "DELETE FROM links WHERE trace = ?"
            " AND NOT EXISTS (SELECT 1 FROM traces WHERE id = links.trace)",
            {(row[0],) for row in gone},
        )
        return len(gone) == CHUNK

    def _evict_logs(self, where: str, value: int, count: int = CHUNK) -> bool:
        gone = self._db.execute(
            f"DELETE FROM logs WHERE id IN (SELECT id FROM logs WHERE {where}"  # noqa: S608 - fixed
            f" ORDER BY at LIMIT {count}) RETURNING service, {LOG_SIZE}",
            (value,),
        ).fetchall()
        self._uncount(((row[0], row[1]) for row in gone), "logs", "log_bytes")
        return len(gone) == CHUNK

    def _uncount(self, gone: Iterable[tuple[int, int]], count: str, size: str) -> None:
        counts: Counter[int] = Counter()
        sizes: Counter[int] = Counter()
        for service, bytes_ in gone:
            counts[service] += 1
            sizes[service] += bytes_
        self._db.executemany(
            f"UPDATE services SET {count} = max(0, {count} - ?), {size} = max(0, {size} - ?)"  # noqa: S608 - fixed names
            " WHERE id = ?",
            [(counts[s], sizes[s], s) for s in counts],
        )

    def evict_points(self, *, oldest: int, chunk: int = 20_000) -> None:
        """Delete points before *oldest*, and series without points."""
        self._db.execute(
            "DELETE FROM points WHERE (series, at) IN"
            " (SELECT series, at FROM points WHERE at < ? LIMIT ?)",
            (oldest, chunk),
        )
        self._series.forget()
