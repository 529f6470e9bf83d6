"""
The writer thread: rows arrive through a bounded queue and are written in batches.

Write failures do not affect reads: with a full disk the current rows are dropped and counted, and
a row that SQLite rejects is dropped without the rest of its batch. The thread always continues.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from mesh.chassis import background
from mesh.console.clock import Now
from mesh.console.store import schema
from mesh.console.store.intake_counters import IntakeCounters
from mesh.console.store.rows import Point, Row
from mesh.console.store.tables import Tables

QUEUE_BYTES = 32 * 1024 * 1024
BATCH_BYTES = 1024 * 1024
BATCH_REQUESTS = 200
PATIENCE_SECONDS = 0.1
"""How long to collect a batch."""
TIDY_EVERY_SECONDS = 5.0

_NO_ROWS = frozenset({"work", "flush"})
_BAD_ROW = (
    *(sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError),
    *(OverflowError, ValueError, TypeError),
)
"""SQLite errors caused by a row rather than the file."""

log = structlog.get_logger("writer")

Work = Callable[[Tables, sqlite3.Connection], None]
"""Work to run in a transaction of the writer."""


@dataclass(frozen=True)
class _Item:
    signal: str
    size: int
    content: Any


class Writer:
    """Accepts rows from any thread and writes them on its own; a context manager."""

    def __init__(
        self,
        path: Path,
        *,
        now: Now,
        intake: IntakeCounters,
        retention: timedelta,
        points_retention: timedelta,
        service_bytes: int,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        """
        Open the file.

        Args:
            path: The SQLite file.
            now: The wall clock.
            intake: Counts received and lost items.
            retention: How long to keep rows.
            points_retention: How long to keep points of time series.
            service_bytes: The quota of one service.
            queue_bytes: The capacity of the queue; rows above it are rejected.

        Raises:
            DatabaseError: The file cannot be opened.
        """
        self.db = schema.open_writer(path)
        """The writer's connection; only for its thread, and for tests before it starts."""
        self._now = now
        self._intake = intake
        self._retention = retention
        self._points_retention = points_retention
        self._service_bytes = service_bytes
        self._queue_bytes = queue_bytes
        self._tables = Tables(self.db, intake, now)
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._thread = background.thread("telemetry writer", self._run)
        self._tidied = 0
        self._more_to_evict = False
        self.fault = ""
        """Why rows cannot be written now; empty if they can."""

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Write the queued rows, then close the file."""
        self._queue.put(None)
        self._thread.join()
        self.db.close()

    def offer(self, signal: str, rows: Sequence[Row], size: int) -> bool:
        """Queue rows of about *size* bytes; return False if the queue is full."""
        return self._put(_Item(signal, size, rows))

    def offer_points(self, points: Sequence[Point]) -> bool:
        """Queue points of time series."""
        return self.offer("metrics", points, 200 * len(points))

    def do(self, work: Work) -> bool:
        """Queue work to run in a transaction, in order."""
        return self._put(_Item("work", 0, work))

    def _put(self, item: _Item) -> bool:
        with self._lock:
            if self._waiting and self._waiting + item.size > self._queue_bytes:
                return False
            self._waiting += item.size
        self._queue.put(item)
        return True

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until everything queued so far is written or lost; for tests and shutdown."""
        done = threading.Event()
        self._queue.put(_Item("flush", 0, done))
        if not done.wait(timeout):
            raise TimeoutError("writer cannot keep up")

    def _run(self) -> None:
        going = True
        while going:
            batch, going = self._collect()
            try:
                self._write(batch)
                self._tidy()
                self._report("")
            except sqlite3.Error as exc:
                self._lose(batch, exc)
            except Exception as exc:
                log.exception("batch lost")
                self._lose(batch, exc)
            finally:
                with self._lock:
                    self._waiting -= sum(item.size for item in batch)
                for item in batch:
                    if item.signal == "flush":
                        item.content.set()

    def _collect(self) -> tuple[list[_Item], bool]:
        """Wait for a batch; the second value is False once the writer is stopping."""
        batch: list[_Item] = []
        size = 0
        timeout = 0.0 if self._more_to_evict else 1.0
        while size < BATCH_BYTES and len(batch) < BATCH_REQUESTS:
            try:
                item = self._queue.get(timeout=timeout)
            except queue.Empty:
                break
            if item is None:
                return batch, False
            batch.append(item)
            size += item.size
            timeout = PATIENCE_SECONDS
            if item.signal == "flush":
                break
        return batch, True

    def _write(self, batch: list[_Item]) -> None:
        parts = list(_joined(batch))
        if not parts:
            return
        self.db.execute("BEGIN IMMEDIATE")
        try:
            for signal, content in parts:
                self._apply_or_split(signal, content)
            self.db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _apply_or_split(self, signal: str, content: Any) -> None:
        """Write rows together; if SQLite rejects one, write all the others."""
        try:
            self._in_savepoint(signal, content)
        except _BAD_ROW as exc:
            if signal == "work":
                self._lose_row(signal, "", exc)
                return
            for row in content:
                self._apply_one(signal, row)

    def _apply_one(self, signal: str, row: Row) -> None:
        try:
            self._in_savepoint(signal, [row])
        except _BAD_ROW as exc:
            self._lose_row(signal, getattr(row, "service", ""), exc)

    def _in_savepoint(self, signal: str, content: Any) -> None:
        self.db.execute("SAVEPOINT part")
        try:
            self._apply(signal, content)
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK TO part")
                self.db.execute("RELEASE part")
                self._tables.load()
            raise
        self.db.execute("RELEASE part")

    def _lose_row(self, signal: str, service: str, exc: Exception) -> None:
        log.warning("row not written", signal=signal, service=service, fault=str(exc)[:200])
        self._intake.drop(signal, "not_written", service=service)

    def _apply(self, signal: str, content: Any) -> None:
        match signal:
            case "traces":
                self._tables.add_spans(content)
            case "logs":
                self._tables.add_logs(content)
            case "metrics":
                self._tables.add_points(content)
            case _:
                content(self._tables, self.db)

    def _tidy(self) -> None:
        now = self._now()
        due = now - self._tidied > TIDY_EVERY_SECONDS * 1e6
        if not (due or self._more_to_evict):
            return
        self.db.execute("BEGIN IMMEDIATE")
        try:
            self._more_to_evict = self._tables.evict(
                service_bytes=self._service_bytes, oldest=now - _microseconds(self._retention)
            )
            if due:
                self._tidied = now
                self._tables.evict_points(oldest=now - _microseconds(self._points_retention))
            self.db.execute("COMMIT")
        except BaseException:
            self._more_to_evict = False
            self._roll_back()
            raise
        if due and not self._more_to_evict:
            self.db.execute("PRAGMA incremental_vacuum(2000)").fetchall()

    def _roll_back(self) -> None:
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        self._tables.load()

    def _lose(self, batch: list[_Item], exc: Exception) -> None:
        full = "full" in str(exc)
        for item in batch:
            if item.signal not in _NO_ROWS:
                reason = "disk_full" if full else "not_written"
                self._intake.drop(item.signal, reason, count=len(item.content))
        self._report(f"{type(exc).__name__}: {exc}")
        if full:
            self._make_room()

    def _make_room(self) -> None:
        """Free the pages of the oldest rows, so that the newest fit into the file."""
        try:
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self.db.execute("BEGIN IMMEDIATE")
            self._tables.evict_oldest()
            self.db.execute("COMMIT")
        except sqlite3.Error as exc:
            self._roll_back()
            log.warning("cannot free space", fault=str(exc))

    def _report(self, fault: str) -> None:
        if fault != self.fault:
            self.fault = fault
            if fault:
                log.error("telemetry cannot be written", fault=fault)
            else:
                log.info("writing telemetry resumed")


def _joined(batch: list[_Item]) -> Iterator[tuple[str, Any]]:
    """Yield the rows grouped by signal, then the work in order."""
    for signal in ("traces", "logs", "metrics"):
        rows = [row for item in batch if item.signal == signal for row in item.content]
        if rows:
            yield signal, rows
    yield from (("work", item.content) for item in batch if item.signal == "work")


def _microseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1e6)
