"""Supervisor for background tasks: a task that fails is logged, counted and restarted.

Every task that outlives one request runs under it::

    async with background("watch requests", watching.run):
        await server.serve(...)

The second argument is a function without arguments that returns a coroutine. It is called again
after each failure, so whatever it needs must survive a restart. Bind arguments with
`functools.partial`. A task that returns normally has finished and is not restarted.

Use `supervise` where the task belongs to an object that starts and stops it, and `spawn` for work
that runs once and that nobody awaits::

    self._judge = asyncio.create_task(supervise("canary analysis", self._run))
    spawn("send sign-in mail", self._send(message))

`thread` does the same for a thread, which must be called as an attribute of this module::

    background.thread("log files", self._run).start()

Each failure writes an error to the log with the name of the task and adds one to
`amarre_background_failures_total{task}`. While the task is not running, or has not yet run for
`STEADY_SECONDS` after a failure, `amarre_background_up{task}` is 0 and `failing` returns its name.
A `mesh.chassis.server.Server` reports each task to gRPC health as `background/NAME`. The service
as a whole becomes NOT_SERVING only while a task with ``critical=True`` fails.
"""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import structlog

from mesh.chassis.telemetry.metrics import BACKGROUND_FAILURES, BACKGROUND_UP

log = structlog.get_logger("background")

Work = Callable[[], Coroutine[Any, Any, object]]
"""Starts the task; called again for each restart."""

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 30.0
STEADY_SECONDS = 2.0
"""How long a restarted task must run before it counts as recovered."""

_failing: dict[str, bool] = {}
"""Whether each failing task is critical, by name."""
_known: set[str] = set()
_spawned: set[asyncio.Task[None]] = set()


def failing(*, critical: bool = False) -> list[str]:
    """Return the names of the failing tasks, or only of the *critical* ones."""
    found = list(_failing.items())  # Threads change it meanwhile.
    return sorted(name for name, needed in found if needed or not critical)


def names() -> list[str]:
    """Return the name of every supervised task that has been started in this process."""
    return sorted(_known)


@contextlib.asynccontextmanager
async def background(name: str, work: Work, *, critical: bool = False) -> AsyncIterator[None]:
    """Run *work* under `supervise` during the body, then cancel it and wait for its end.

    Args:
        name: What the task does, for logs, metrics and health: ``study refresh``.
        work: Starts the task; called again for each restart.
        critical: Whether the service cannot serve while this task fails.
    """
    task = asyncio.create_task(supervise(name, work, critical=critical), name=name)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def supervise(name: str, work: Work, *, critical: bool = False) -> None:
    """Run *work* until it returns or this task is cancelled; restart it when it fails.

    Restarts back off exponentially from 0.1 s to 30 s, with jitter. The delay starts over once the
    task has run for longer than its last delay and `STEADY_SECONDS`.
    """
    loop = asyncio.get_running_loop()
    restarts = _Restarts(name, critical=critical)
    try:
        while True:
            started = loop.time()
            steady = loop.call_later(STEADY_SECONDS, _recovered, name)
            try:
                await work()
            except (Exception, asyncio.CancelledError) as error:
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                    raise
                delay = restarts.failed(error, loop.time() - started)
            else:
                return
            finally:
                steady.cancel()
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
    finally:
        _ended(name)


def thread(name: str, work: Callable[[], object]) -> threading.Thread:
    """Return a daemon thread that runs *work* until it returns, and again when it fails.

    Restarts back off and are reported as in `supervise`.
    """
    return threading.Thread(target=_supervise_thread, args=(name, work), name=name, daemon=True)


def _supervise_thread(name: str, work: Callable[[], object]) -> None:
    restarts = _Restarts(name)
    try:
        while True:
            started = time.monotonic()
            steady = threading.Timer(STEADY_SECONDS, _recovered, [name])
            steady.daemon = True
            if name in _failing:
                steady.start()
            try:
                work()
            except Exception as error:
                delay = restarts.failed(error, time.monotonic() - started)
            else:
                return
            finally:
                steady.cancel()
            time.sleep(delay)
    finally:
        _ended(name)


class _Restarts:
    """Reports the failures of one supervised task or thread, and computes its delays."""

    def __init__(self, name: str, *, critical: bool = False) -> None:
        self._name, self._critical = name, critical
        self._delay = FIRST_DELAY_SECONDS
        _known.add(name)
        BACKGROUND_UP.labels(name).set(1)

    def failed(self, error: BaseException, lasted: float) -> float:
        """Report a failure after *lasted* seconds; return the seconds before the next start."""
        if lasted > max(self._delay, STEADY_SECONDS):
            self._delay = FIRST_DELAY_SECONDS
        _failing[self._name] = self._critical
        BACKGROUND_UP.labels(self._name).set(0)
        delay = self._delay
        _failed(self._name, error, restart_in_seconds=delay)
        self._delay = min(delay * 2, LONGEST_DELAY_SECONDS)
        return delay


def spawn(name: str, work: Coroutine[Any, Any, object]) -> asyncio.Task[None]:
    """Run *work* once as a task of its own; a failure is logged and counted, never raised."""
    task = asyncio.create_task(_once(name, work), name=name)
    _spawned.add(task)  # The event loop itself holds only a weak reference.
    task.add_done_callback(_spawned.discard)
    return task


async def _once(name: str, work: Coroutine[Any, Any, object]) -> None:
    try:
        await work
    except Exception as error:
        _failed(name, error)


def _ended(name: str) -> None:
    _failing.pop(name, None)
    _known.discard(name)
    with contextlib.suppress(KeyError):
        BACKGROUND_UP.remove(name)


def _recovered(name: str) -> None:
    _failing.pop(name, None)
    BACKGROUND_UP.labels(name).set(1)


def _failed(name: str, error: BaseException, **facts: float) -> None:
    BACKGROUND_FAILURES.labels(name).inc()
    with contextlib.suppress(Exception):  # Supervision goes on even if the log cannot be written.
        log.error("background task failed", task=name, exc_info=error, **facts)
