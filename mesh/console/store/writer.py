"""
The one thread that writes: requests in by a bounded queue, rows out in batches.

A full disk or a damaged page costs the batch at hand, which is counted; the thread goes on.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from mesh.console.clock import Now
from mesh.console.intake.otlp_decoder import Decoder
from mesh.console.store import schema
from mesh.console.store.intake_counters import IntakeCounters
from mesh.console.store.rows import Point
from mesh.console.store.tables import Tables

QUEUE_BYTES = 32 * 1024 * 1024
BATCH_BYTES = 1024 * 1024
BATCH_REQUESTS = 200
PATIENCE_SECONDS = 0.1
"""How long a batch waits for more."""
TIDY_EVERY_SECONDS = 5.0
POINTS_KEPT = timedelta(hours=6)

log = structlog.get_logger("writer")

Work = Callable[[Tables, sqlite3.Connection], None]
"""Something to do in a transaction of the writer."""


@dataclass(frozen=True)
class _Item:
    signal: str
    size: int
    content: Any


class Writer:
    """Takes requests from any thread and writes them on its own; ``with`` starts and ends it."""

    def __init__(
        self,
        path: Path,
        *,
        now: Now,
        intake: IntakeCounters,
        retention: timedelta,
        service_bytes: int,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        """
        Open the file.

        Args:
            path: The SQLite file.
            now: The time of day.
            intake: Counts what comes and what is lost.
            retention: How long rows are kept.
            service_bytes: What one service may fill.
            queue_bytes: How much may wait to be written; more is refused.

        Raises:
            DatabaseError: The file cannot be used.
        """
        self.db = schema.open_writer(path)
        """The writer's own connection; for its thread, and for tests before it starts."""
        self._now = now
        self._intake = intake
        self._retention = retention
        self._service_bytes = service_bytes
        self._queue_bytes = queue_bytes
        self._decoder = Decoder(now, intake, retention)
        self._tables = Tables(self.db, intake, now)
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._tidied = 0
        self._more_to_evict = False
        self.fault = ""
        """What stops rows from being written now; empty when nothing does."""

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Write what waits, then close the file."""
        self._queue.put(None)
        self._thread.join()
        self.db.close()

    def offer(self, signal: str, request: Any, size: int) -> bool:
        """Take an OTLP request to be written; False when too much is waiting already."""
        return self._put(_Item(signal, size, request))

    def offer_points(self, points: list[Point]) -> bool:
        """Take points of time series to be written."""
        return self._put(_Item("points", 200 * len(points), points))

    def do(self, work: Work) -> bool:
        """Take something to do in a transaction, after what was taken before."""
        return self._put(_Item("work", 0, work))

    def _put(self, item: _Item) -> bool:
        with self._lock:
            if self._waiting and self._waiting + item.size > self._queue_bytes:
                return False
            self._waiting += item.size
        self._queue.put(item)
        return True

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until everything taken so far is written, or was lost; for tests and the end."""
        done = threading.Event()
        self._queue.put(_Item("flush", 0, done))
        if not done.wait(timeout):
            raise TimeoutError("the writer does not keep up")

    def _run(self) -> None:
        going = True
        while going:
            batch, going = self._collect()
            try:
                self._write(batch)
                self._tidy()
                self._tell("")
            except sqlite3.Error as exc:
                self._lose(batch, exc)
            except Exception:
                log.exception("batch lost")
                self._intake.drop("all", "not_written", count=len(batch))
            with self._lock:
                self._waiting -= sum(item.size for item in batch)
            for item in batch:
                if item.signal == "flush":
                    item.content.set()

    def _collect(self) -> tuple[list[_Item], bool]:
        """Wait for a batch; the second value is false when the end was asked for."""
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
        rows = list(self._decoded(batch))
        if not rows:
            return
        self.db.execute("BEGIN IMMEDIATE")
        try:
            for signal, content in rows:
                self._apply(signal, content)
            self.db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _decoded(self, batch: list[_Item]) -> Iterator[tuple[str, Any]]:
        joined: dict[str, list[Any]] = {"traces": [], "logs": [], "points": []}
        for item in batch:
            match item.signal:
                case "traces":
                    joined["traces"] += self._decoder.spans(item.content)
                case "logs":
                    joined["logs"] += self._decoder.logs(item.content)
                case "metrics":
                    joined["points"] += self._decoder.points(item.content)
                case "points":
                    joined["points"] += item.content
        yield from ((signal, rows) for signal, rows in joined.items() if rows)
        yield from (("work", item.content) for item in batch if item.signal == "work")

    def _apply(self, signal: str, content: Any) -> None:
        match signal:
            case "traces":
                self._tables.add_spans(content)
            case "logs":
                self._tables.add_logs(content)
            case "points":
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
                self._tables.evict_points(oldest=now - _microseconds(POINTS_KEPT))
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

    def _lose(self, batch: list[_Item], exc: sqlite3.Error) -> None:
        full = "full" in str(exc)
        for item in batch:
            self._intake.drop(item.signal, "disk_full" if full else "not_written")
        self._tell(f"{type(exc).__name__}: {exc}")
        if full:
            self._make_room()

    def _make_room(self) -> None:
        """Give pages of the oldest rows free, so that the newest find room in the same file."""
        try:
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self.db.execute("BEGIN IMMEDIATE")
            self._tables.evict_oldest()
            self.db.execute("COMMIT")
        except sqlite3.Error as exc:
            self._roll_back()
            log.warning("no room can be made", fault=str(exc))

    def _tell(self, fault: str) -> None:
        if fault != self.fault:
            self.fault = fault
            if fault:
                log.error("telemetry cannot be written", fault=fault)
            else:
                log.info("telemetry is written again")


def _microseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1e6)
