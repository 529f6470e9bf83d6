"""Rules of the mesh status: how parts are rated, how long a result is valid, who is notified.

Nothing polls in the background: a check runs when a caller asks and the last result is too old,
and concurrent callers share one check.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

import structlog

from health_svc.ports import Check, PartDownError

HOLDS = timedelta(seconds=10)
"""How long a result is valid."""
BAD_HOLDS = timedelta(seconds=0.5)
"""How long a result is valid that is not healthy, so that recovery shows at once."""
PATIENCE = timedelta(seconds=1)
"""How long callers wait for a new result where the last one is not healthy."""
SLOW = timedelta(seconds=2)
"""Latency above which a part is degraded."""
GIVE_UP = timedelta(seconds=4)
"""Time limit of a check; below the 5 s deadline of GetStatus."""
HEARTBEAT = timedelta(seconds=15)

log = structlog.get_logger("status")


class Condition(IntEnum):
    """Condition of a part; larger is worse. Values are those of ``HealthStatus``."""

    HEALTHY = 1
    DEGRADED = 2
    UNHEALTHY = 3


@dataclass(frozen=True)
class Part:
    """Result of checking one part; *message* is empty when it is healthy."""

    name: str
    condition: Condition
    message: str
    latency_ms: float
    checked_at: datetime


@dataclass(frozen=True)
class State:
    """Results of all parts, in configuration order."""

    parts: tuple[Part, ...]
    checked_at: datetime
    uptime: timedelta

    @property
    def condition(self) -> Condition:
        """Return the worst condition of any part; healthy when there are no parts."""
        return max((part.condition for part in self.parts), default=Condition.HEALTHY)

    @property
    def event_id(self) -> str:
        """Return the id of this state; equal conditions have equal ids on every replica."""
        text = ",".join(f"{part.name}={part.condition}" for part in self.parts)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Board:
    """Status of the mesh, at most `HOLDS` old."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        holds: timedelta = HOLDS,
        bad_holds: timedelta = BAD_HOLDS,
        slow: timedelta = SLOW,
        give_up: timedelta = GIVE_UP,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Build the board.

        Args:
            checks: The check of each part, by name, in display order.
            holds: How long a healthy result is valid.
            bad_holds: How long any other result is valid; at most *holds*.
            slow: Latency above which a part is degraded.
            give_up: Time limit of a check.
            clock: Monotonic clock, in seconds.
        """
        self._checks = dict(checks)
        self._holds = holds
        self._bad_holds = min(bad_holds, holds)
        self._slow = slow
        self._give_up = give_up
        self._clock = clock
        self._started = clock()
        self._found: State | None = None
        self._found_at = 0.0
        self._running: asyncio.Task[State] | None = None

    async def current(self) -> State:
        """Return the state, checking only when the last result is too old."""
        found = self._found
        if found is not None and self._age() < self._valid_for(found):
            return found
        if self._running is None or self._running.done():
            # A context of its own: the deadline of the first caller must not bind the others.
            self._running = asyncio.create_task(self._check_all(), context=Context())
        # One caller may cancel; the others still need the result.
        running = asyncio.shield(self._running)
        if found is None or found.condition is Condition.HEALTHY:
            return await running
        try:
            # A part that hangs must not delay everybody who asks how it is.
            return await asyncio.wait_for(running, PATIENCE.total_seconds())
        except TimeoutError:
            return found

    def _valid_for(self, state: State) -> timedelta:
        return self._holds if state.condition is Condition.HEALTHY else self._bad_holds

    async def watch(
        self,
        last_event_id: str = "",
        *,
        heartbeat: timedelta = HEARTBEAT,
        lasts: timedelta | None = None,
    ) -> AsyncIterator[State | None]:
        """Yield the current state, every change, and None after each silent *heartbeat*.

        The current state is skipped when *last_event_id* names it. Ends after *lasts*; None means
        never.
        """
        known = last_event_id
        sent_at = self._clock()
        ends = math.inf if lasts is None else sent_at + lasts.total_seconds()
        while self._clock() < ends:
            state = await self.current()
            if state.event_id != known:
                known, sent_at = state.event_id, self._clock()
                yield state
            elif self._clock() - sent_at >= heartbeat.total_seconds():
                sent_at = self._clock()
                yield None
            silent = heartbeat.total_seconds() - (self._clock() - sent_at)
            old = (self._valid_for(state) - self._age()).total_seconds()
            await asyncio.sleep(max(0.0, min(silent, old, ends - self._clock())))

    def _age(self) -> timedelta:
        return timedelta(seconds=self._clock() - self._found_at)

    async def _check_all(self) -> State:
        parts = await asyncio.gather(*(self._check(name) for name in self._checks))
        uptime = timedelta(seconds=self._clock() - self._started)
        before, state = self._found, State(tuple(parts), datetime.now(UTC), uptime)
        self._found, self._found_at = state, self._clock()
        if before is None or before.event_id != state.event_id:
            conditions = {part.name: part.condition.name.lower() for part in state.parts}
            log.info("mesh status changed", condition=state.condition.name.lower(), **conditions)
        return state

    async def _check(self, name: str) -> Part:
        started = self._clock()
        condition, message = Condition.HEALTHY, ""
        try:
            async with asyncio.timeout(self._give_up.total_seconds()):
                await self._checks[name]()
        except PartDownError as exc:
            condition, message = Condition.UNHEALTHY, str(exc)[:500]
        except TimeoutError:
            seconds = self._give_up.total_seconds()
            condition, message = Condition.UNHEALTHY, f"No response within {seconds:g} s."
        except Exception:
            log.exception("check failed", part=name)
            condition, message = Condition.UNHEALTHY, "The check itself failed; see the log."
        took = timedelta(seconds=self._clock() - started)
        if condition is Condition.HEALTHY and took > self._slow:
            condition, message = (
                Condition.DEGRADED,
                f"Took {took.total_seconds():.1f} s to respond.",
            )
        milliseconds = round(took.total_seconds() * 1000, 2)
        return Part(name, condition, message, milliseconds, datetime.now(UTC))
