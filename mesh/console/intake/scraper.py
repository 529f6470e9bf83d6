"""Scrapes ``/metrics`` of every process and the admin interface of every Envoy."""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import structlog
from pydantic import TypeAdapter, ValidationError

from mesh.chassis.telemetry import names as emitted
from mesh.chassis.telemetry.clients import http_client
from mesh.console.clock import Now
from mesh.console.intake import envoy_admin, prometheus_text
from mesh.console.intake.prometheus_text import Exemplar, Key, Reading, Tally
from mesh.console.naming import workload
from mesh.console.settings import Target
from mesh.console.store.tables import Tables
from mesh.console.store.writer import Writer

TIMEOUT_SECONDS = 3.0
RETRY_SECONDS = 1.0
"""Interval for what did not respond, such as a process that is starting."""
MOST_BYTES = 8 * 1024 * 1024
STARTED = "process_start_time_seconds"
"""The gauge with the time at which a process started."""

_TARGETS = TypeAdapter(tuple[Target, ...])

log = structlog.get_logger("scrape")


@dataclass
class Seen:
    """The latest scrape of one target; ``fault`` is empty while it succeeds."""

    target: Target
    at: int = 0
    up_since: int = 0
    named_at: int = 0
    """When the runner listed the target; 0 for targets from the settings."""
    fault: str = "not scraped yet"
    gauges: dict[str, float] = field(default_factory=dict)
    dependencies: dict[str, bool] = field(default_factory=dict)
    """Whether each dependency is available, as the process's health checks report it."""
    version: str = ""
    proxy: envoy_admin.Proxy | None = None
    tallies: dict[Key, Tally] = field(default_factory=dict)
    callers: dict[tuple[str, str, str], float] = field(default_factory=dict)
    exemplars: frozenset[Exemplar] = frozenset()
    families: prometheus_text.Families = field(default_factory=dict)
    read_before: bool = False


class Scraper:
    """Scrapes targets until cancelled and keeps the latest result of each."""

    def __init__(
        self,
        targets: Sequence[Target],
        writer: Writer,
        *,
        now: Now,
        every: timedelta,
        file: Path | None = None,
    ) -> None:
        """
        Scrape *targets* and those listed in the JSON *file*, which is reread when it changes.
        """
        self.seen = [Seen(target) for target in targets]
        self._file = file
        self._read_at = 0
        self._writer = writer
        self._now = now
        self._every = every.total_seconds()

    async def run(self) -> None:
        """Scrape all targets concurrently, at each interval, until cancelled."""
        async with http_client(
            timeout=TIMEOUT_SECONDS,
            limits=httpx.Limits(max_keepalive_connections=64),
            # Compressing a metrics page costs its process more than sending it.
            headers={"accept-encoding": "identity"},
        ) as client:
            while True:
                await self.once(client)
                await self._pause(client)

    async def once(self, client: httpx.AsyncClient) -> None:
        """Scrape all targets once."""
        self._follow()
        await asyncio.gather(*(self._scrape(client, seen) for seen in self.seen))

    async def _pause(self, client: httpx.AsyncClient) -> None:
        """Wait for the next round; scrape targets that did not respond again before."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._every
        while (left := ends_at - loop.time()) > RETRY_SECONDS:
            await asyncio.sleep(RETRY_SECONDS)
            await asyncio.gather(*(self._scrape(client, seen) for seen in self.seen if seen.fault))
        await asyncio.sleep(left)

    def _follow(self) -> None:
        """Load the targets from the file; a process on other ports is a new instance."""
        try:
            changed = self._file.stat().st_mtime_ns if self._file else 0
            if self._file is None or changed == self._read_at:
                return
            named = _TARGETS.validate_json(self._file.read_bytes())
        except (OSError, ValidationError) as exc:
            log.warning("cannot read scrape targets", file=str(self._file), message=str(exc)[:200])
            return
        self._read_at = changed
        known = {seen.target: seen for seen in self.seen}
        # In place: readers hold a reference to this list.
        self.seen[:] = [known.get(target) or Seen(target, named_at=self._now()) for target in named]

    async def _scrape(self, client: httpx.AsyncClient, seen: Seen) -> None:
        fault = ""
        try:
            if seen.target.is_envoy:
                url = seen.target.url.rstrip("/")
                seen.proxy = await envoy_admin.read(client, url, seen.proxy)
                seen.version = seen.proxy.version
            else:
                text = await fetch(client, seen.target.url, accept=prometheus_text.OPENMETRICS)
                self._take(seen, text)
        except Exception as exc:  # One process never affects the others.
            fault = phrase(exc)
        seen.at = self._now()
        if fault != seen.fault:
            if not fault:
                seen.up_since = seen.at
            log.info("scrape state changed", process=seen.target.process, fault=fault or "none")
        seen.fault = fault

    def _take(self, seen: Seen, text: str) -> None:
        at = self._now()
        process = seen.target.process
        reading = prometheus_text.read(text, process=process, at=at, families=seen.families)
        seen.gauges = {p.name: p.value for p in reading.points if p.labels == "{}"}
        seen.gauges |= {
            p.name: p.value for p in reading.points if p.name == emitted.RPC_SERVER_IN_FLIGHT
        }
        seen.dependencies = {
            json.loads(p.labels)["dependency"]: bool(p.value)
            for p in reading.points
            if p.name == emitted.DEPENDENCY_UP
        }
        builds = (p.labels for p in reading.points if p.name == emitted.BUILD_INFO)
        seen.version = next((json.loads(labels)["version"] for labels in builds), "")
        self._writer.offer_points(reading.points)
        found = frozenset(reading.exemplars)
        fresh = sorted(found - seen.exemplars)
        seen.exemplars = found
        if fresh:
            self._writer.do(lambda tables, _: tables.add_exemplars(fresh))
        # Calls from before the first scrape cannot be assigned to a time; only a process that
        # started since then counts from 0.
        began = seen.gauges.get(STARTED, 0) * 1e6
        if seen.read_before or at - began < 3 * self._every * 1e6:
            self._count(seen, reading, at)
        seen.tallies, seen.callers, seen.read_before = reading.tallies, reading.callers, True

    def _count(self, seen: Seen, reading: Reading, at: int) -> None:
        slot = at // 1_000_000
        process = seen.target.process
        calls: list[tuple[int | float | str, ...]] = []
        for key, tally in reading.tallies.items():
            added = tally.since(seen.tallies.get(key))
            if added.calls > 0:
                buckets = json.dumps(added.buckets, separators=(",", ":"))
                calls.append((slot, process, *key, added.calls, added.seconds, buckets))
        edges: list[tuple[int, str, str, str, int, int, int, int]] = []
        for (service, method, caller), count in reading.callers.items():
            before = seen.callers.get((service, method, caller), 0.0)
            more = int(count - before if count >= before else count)
            if more:
                rpc = f"{service}.{method}"
                edges.append((slot // 60, caller, workload(process), rpc, 1, more, 0, 0))
        if calls or edges:

            def work(tables: Tables, _: Any) -> None:
                tables.count_calls(calls)
                tables.count_edges(edges)

            self._writer.do(work)


async def fetch(client: httpx.AsyncClient, url: str, *, accept: str = "*/*") -> str:
    """
    Return the text at *url*.

    Raises:
        ValueError: The response is too large.
        httpx.HTTPError: It does not respond, or with an error status.
    """
    async with contextlib.AsyncExitStack() as stack:
        answer = await stack.enter_async_context(
            client.stream("GET", url, headers={"accept": accept})
        )
        answer.raise_for_status()
        body = bytearray()
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES} bytes")
    return body.decode(errors="replace")


def phrase(error: Exception) -> str:
    """Return a phrase for why a server cannot be read."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"responds with HTTP {error.response.status_code}"
    if isinstance(error, httpx.TimeoutException):
        return "does not respond in time"
    if isinstance(error, httpx.HTTPError):
        return "does not respond"
    return f"returns an unreadable response: {error}"[:200]
