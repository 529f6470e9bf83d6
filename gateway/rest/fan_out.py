"""One upstream watch for all event streams of a method that needs no session."""

import asyncio
import contextlib
from collections.abc import Callable
from contextvars import Context
from typing import Any

import grpc
import structlog

from mesh.chassis.errors import MeshError, UnavailableError

log = structlog.get_logger("streams")

REOPEN_SECONDS = 1.0
"""Pause before the upstream watch is opened again."""


class FanOut:
    """
    Reads one upstream watch while at least one client listens, and shares its latest message.

    Each message replaces the one before, so a slow client misses intermediate states and costs
    no memory.
    """

    def __init__(self, open_watch: Callable[[], Any], *, lifetime_seconds: float) -> None:
        """
        Set up the fan-out; nothing is opened yet.

        Args:
            open_watch: Opens the upstream call.
            lifetime_seconds: How long one subscription lasts, as the contract says.
        """
        self._open_watch = open_watch
        self._lifetime = lifetime_seconds
        self._changed = asyncio.Condition()
        self._latest: Any = None
        self._version = 0
        self._error: Exception | None = None
        self._listeners = 0
        self._reader: asyncio.Task[None] | None = None

    def subscribe(self, last_event_id: str) -> "Subscription":
        """Return a new subscription; a latest message with *last_event_id* is not repeated."""
        self._listeners += 1
        if self._reader is None or self._reader.done():
            self._error = None
            self._reader = asyncio.create_task(self._read(), context=Context())
        return Subscription(self, last_event_id, self._lifetime)

    def leave(self) -> None:
        """Count one listener less; the last one ends the upstream watch."""
        self._listeners -= 1
        if not self._listeners and self._reader is not None:
            self._reader.cancel()
            self._reader = None
            self._latest, self._version = None, 0

    async def next_after(self, version: int) -> tuple[int, Any]:
        """
        Wait for a message newer than *version*; returns its version and the message.

        Raises:
            MeshError, grpc.aio.AioRpcError: The upstream watch cannot be opened.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._version > version or self._error is not None)
            if self._version > version:
                return self._version, self._latest
            raise self._error or UnavailableError("The watch has ended.")

    async def _read(self) -> None:
        while True:
            call = None
            try:
                call = self._open_watch()
                while (message := await call.read()) is not grpc.aio.EOF:
                    if getattr(message, "event_id", ""):
                        await self._share(message)
            except (MeshError, grpc.aio.AioRpcError) as error:
                lifetime_over = (
                    isinstance(error, grpc.aio.AioRpcError)
                    and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                )
                # Listeners that have the latest message keep it; new ones get the error.
                if self._latest is None and not lifetime_over:
                    await self._fail(error)
                    return
            except Exception as error:
                log.exception("shared watch failed")
                await self._fail(error)
                return
            finally:
                if call is not None:
                    call.cancel()
            await asyncio.sleep(REOPEN_SECONDS)

    async def _share(self, message: Any) -> None:
        if self._latest is not None and self._latest.event_id == message.event_id:
            return
        async with self._changed:
            self._latest = message
            self._version += 1
            self._changed.notify_all()

    async def _fail(self, error: Exception) -> None:
        async with self._changed:
            self._error = error
            self._changed.notify_all()


class Subscription:
    """One listener, with the methods of a gRPC call that an event stream needs."""

    def __init__(self, source: FanOut, last_event_id: str, lifetime_seconds: float) -> None:
        self._source = source
        self._version = 0
        self._known = last_event_id
        self._ends_at = asyncio.get_running_loop().time() + lifetime_seconds
        self._left = False

    async def read(self) -> Any:
        """Return the next message; ``grpc.aio.EOF`` at the end of the subscription."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._ends_at):
                while True:
                    self._version, message = await self._source.next_after(self._version)
                    if message.event_id != self._known:
                        self._known = ""
                        return message
        return grpc.aio.EOF

    def cancel(self) -> None:
        """Leave; may be called again."""
        if not self._left:
            self._left = True
            self._source.leave()
