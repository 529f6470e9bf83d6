"""Supervisor of child processes: start, watch, restart with back-off, stop.

A restart that fails (disk full, no memory, a missing program) is retried, and the reason is kept in
`Child.problem`. Each child has its own process group.
"""

import asyncio
import contextlib
import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

from mesh.chassis.background import supervise
from mesh.local.processes.fork_server import (
    ForkedProcess,
    ForkServer,
    ForkServerError,
    die_with_parent,
)
from mesh.local.processes.log_files import LogFiles, Pipe

log = structlog.get_logger("supervisor")

LONGEST_BACKOFF_SECONDS = 10.0
CALM_SECONDS = 10.0
"""The back-off is reset once a process has run this long."""
KILL_SECONDS = 2.0
POLL_SECONDS, LONGEST_POLL_SECONDS = 0.01, 1.0
MAX_EXITS = 100
_LOG_SECONDS = 0.5
"""How long to wait for the last log lines of a process that has ended."""
_RESTART_SECONDS = 30.0


class StartFailedError(Exception):
    """A process ended before it was ready; the message includes the end of its log."""


@dataclass
class Child:
    """One supervised process."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_file: Path
    logs: LogFiles = field(repr=False)
    ready: Callable[[], Awaitable[bool]]
    restore: Callable[[], None] = field(default=lambda: None, repr=False)
    """Creates removed files that the process needs, before it is restarted."""
    drain_seconds: float = 10.0
    forks: ForkServer | None = field(default=None, repr=False)
    """Starts ``python -m MODULE`` commands; None: they are executed like other programs."""
    process: asyncio.subprocess.Process | ForkedProcess | None = field(default=None, repr=False)
    ready_ms: int = 0
    """Time from start to readiness."""
    started_at: float = 0.0
    restarts: int = 0
    stopping: bool = False
    problem: str = ""
    """Why it could not be restarted, or is not ready again; empty while it is ready."""
    _pipe: Pipe | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """The process id; 0 when it does not run."""
        return self.process.pid if self.process and self.process.returncode is None else 0

    async def start(self) -> None:
        """Start the process; its output is appended to its log file.

        Raises:
            OSError: The program does not exist, or the system has no resources left.
        """
        self.stopping = False
        self.started_at = time.monotonic()
        pipe = self.logs.pipe(self.log_file)
        starting = asyncio.ensure_future(self._process(pipe.descriptor))
        try:
            await asyncio.wait({starting})
        finally:
            # Awaited even if this start is cancelled, so that the process can be stopped.
            try:
                self.process = await starting
            finally:
                pipe.close()
        self._pipe = pipe

    async def _process(self, output: int) -> asyncio.subprocess.Process | ForkedProcess:
        is_module = tuple(self.command[:2]) == (sys.executable, "-m")
        if is_module and self.forks is not None and self.forks.runs:
            try:
                return await self.forks.start(self.command, self.environment, output)
            except ForkServerError:
                log.warning("fork server died", message="Processes start more slowly from now on.")
        return await asyncio.create_subprocess_exec(
            *self.command,
            env=dict(self.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    async def wait_ready(self, timeout: float) -> None:
        """Wait until the process is ready.

        Raises:
            StartFailedError: It ended, or was not ready within *timeout* seconds.
        """
        assert self.process is not None  # noqa: S101 - called after start
        while (waited := time.monotonic() - self.started_at) < timeout:
            if self.process.returncode is not None:
                raise StartFailedError(
                    f"{self.name} ended with status {self.process.returncode} before it was "
                    f"ready:\n{await self.last_lines()}\nFull log: {self.log_file}"
                )
            if await self.ready():
                self.ready_ms = round((time.monotonic() - self.started_at) * 1000)
                return
            # Poll often at first; later polling would only slow down a slow process.
            await asyncio.sleep(min(max(POLL_SECONDS, waited / 20), LONGEST_POLL_SECONDS))
        raise StartFailedError(
            f"{self.name} was not ready within {timeout:.0f} s:\n{await self.last_lines()}\n"
            f"Full log: {self.log_file}"
        )

    async def stop(self) -> None:
        """Ask the process to stop, wait while it drains, then kill the rest of its group."""
        self.stopping = True
        process = self.process
        if process is None or process.returncode is not None:
            return
        _signal_group(process.pid, signal.SIGTERM)
        # A process stopped by SIGSTOP would not see SIGTERM.
        _signal_group(process.pid, signal.SIGCONT)
        try:
            await asyncio.wait_for(process.wait(), self.drain_seconds + KILL_SECONDS)
        except TimeoutError:
            log.warning("process killed", process=self.name)
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """Kill the process and its group at once."""
        if self.pid:
            _signal_group(self.pid, signal.SIGKILL)

    async def last_lines(self, count: int = 8) -> str:
        """Return the end of the log, indented."""
        lines = (await self.last_output()).splitlines()[-count:]
        return "\n".join(f"    {line[:500]}" for line in lines)

    async def last_output(self) -> str:
        """Return the last 16 KiB of the log."""
        if self._pipe is not None and not self.pid:
            await asyncio.to_thread(self._pipe.ended.wait, _LOG_SECONDS)
        return self.logs.file(self.log_file).tail()


class Exit(NamedTuple):
    """A process that ended although nobody stopped it."""

    process: str
    at: str
    """RFC 3339."""
    status: int
    """Exit status, or the negative number of the signal that killed it."""


class Supervisor:
    """Keeps children running until they are stopped."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        """Call *on_change* whenever a process was replaced."""
        self.children: dict[str, Child] = {}
        self.exits: deque[Exit] = deque(maxlen=MAX_EXITS)
        """The last processes that died, the latest last."""
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._on_change = on_change
        self._stopping = False

    async def start(self, children: Sequence[Child], *, timeout: float = 60) -> None:
        """Start *children* together, wait until all are ready, then watch them.

        If this is cancelled, they have been stopped again.

        Raises:
            StartFailedError: One did not become ready; all of them have been stopped again.
        """
        for child in children:
            if child.name in self.children:
                raise StartFailedError(f"{child.name} is already running.")
        try:
            await self._start(children, timeout)
        except BaseException:
            await asyncio.gather(*(self.remove(child.name) for child in children))
            raise
        for child in children:
            self._watchers[child.name] = asyncio.create_task(
                supervise(f"watch {child.name}", partial(self._watch, child))
            )

    async def _start(self, children: Sequence[Child], timeout: float) -> None:
        try:
            for child in children:
                if self._stopping:
                    raise StartFailedError("The mesh is stopping.")
                self.children[child.name] = child
                try:
                    await child.start()
                except OSError as exc:
                    raise StartFailedError(f"{child.name} cannot be started: {exc}") from exc
            async with asyncio.TaskGroup() as group:
                for child in children:
                    group.create_task(child.wait_ready(timeout))
        except* StartFailedError as failures:
            raise failures.exceptions[0] from None

    async def remove(self, name: str) -> None:
        """Stop and remove a child; does nothing if there is none with this name."""
        watcher = self._watchers.pop(name, None)
        child = self.children.get(name)
        if child is None:
            return
        child.stopping = True
        if watcher:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
        # Listed until it has ended, so that `kill` finds it.
        await child.stop()
        if self.children.get(name) is child:
            self.children.pop(name)

    def rename(self, name: str, new_name: str) -> None:
        """Rename the child *name* to *new_name*."""
        child = self.children.pop(name)
        child.name = new_name
        self.children[new_name] = child
        self._watchers[new_name] = self._watchers.pop(name)

    async def stop(self, waves: Sequence[Sequence[str]]) -> None:
        """Stop the children in waves; those of one wave together."""
        self._stopping = True
        for child in self.children.values():
            child.stopping = True
        for wave in waves:
            names = [name for name in wave if name in self.children]
            await asyncio.gather(*(self.remove(name) for name in names))
        await asyncio.gather(*(self.remove(name) for name in list(self.children)))

    def kill(self) -> None:
        """Kill every child at once."""
        self._stopping = True
        for child in self.children.values():
            child.stopping = True
            child.kill()

    async def _watch(self, child: Child) -> None:
        backoff = 0.1
        while True:
            started = time.monotonic()
            assert child.process is not None  # noqa: S101 - watched after start
            status = await child.process.wait()
            if child.stopping:
                return
            self.exits.append(Exit(child.name, datetime.now(UTC).isoformat(), status))
            if time.monotonic() - started > CALM_SECONDS:
                backoff = 0.1
            log.warning("process died", process=child.name, status=status, restart_in_s=backoff)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)
            try:
                await self._restart(child)
            except Exception as exc:
                child.problem = f"{child.name} cannot be restarted: {exc}"
                log.error("process not restarted", process=child.name, message=str(exc))  # noqa: TRY400 - a sentence
            else:
                self._on_change()

    async def _restart(self, child: Child) -> None:
        child.restarts += 1
        child.restore()
        await child.start()
        try:
            await child.wait_ready(_RESTART_SECONDS)
        except StartFailedError as exc:
            if not child.pid:
                raise
            child.problem = str(exc)
            log.error("process not ready again", process=child.name, message=str(exc))  # noqa: TRY400 - a sentence
            await child.wait_ready(math.inf)
        child.problem = ""
        log.info("process restarted", process=child.name, ready_ms=child.ready_ms)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
