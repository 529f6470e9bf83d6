"""Server-sent events: a streaming rpc as a text stream that browsers can resume."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message
from starlette.types import Receive, Scope, Send

from gateway.rest.envelope import as_mesh_error, describe, encode
from gateway.rest.json_printer import to_json
from mesh.chassis.errors import MeshError, from_rpc_error
from mesh.contract.reasons import MESSAGES

EVENT_STREAM = "text/event-stream; charset=utf-8"
HEARTBEAT_SECONDS = 15.0
"""Proxies and browsers close streams that are silent for longer."""
RECHECK_SECONDS = 1.0
"""Interval at which the session of a stream is checked again."""
FIRST_SECONDS = 2.0
"""How long to wait for an early error before the stream starts."""
_LINE_BREAKS = re.compile(r"[\r\n\0]")


class EventStream:
    """A response that writes each message of *call* as an event.

    It ends with ``event: end`` when the rpc, the session or this process ends, and with
    ``event: error`` when the rpc fails; the rpc is cancelled when the client goes.
    """

    def __init__(
        self,
        call: Any,
        *,
        still_allowed: Callable[[], Awaitable[bool]],
        stopping: asyncio.Event,
        on_close: Callable[[], None],
    ) -> None:
        self._call = call
        self._on_close = on_close
        self._still_allowed = still_allowed
        self._stopping = stopping
        self._next: asyncio.Future[Any] = asyncio.ensure_future(_next(call))

    async def begin(self) -> "EventStream":
        """Wait briefly for the first message, so that an early error is an ordinary error response.

        Raises:
            grpc.aio.AioRpcError: The call failed.
        """
        done, _ = await asyncio.wait({self._next}, timeout=FIRST_SECONDS)
        if done:
            error = self._next.exception()
            if error is not None:
                self.close()
                raise error
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [
                        (b"content-type", EVENT_STREAM.encode()),
                        (b"x-accel-buffering", b"no"),
                    ],
                }
            )
            async for text in self._texts(gone):
                await _write(send, text)
            if not gone.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.close()
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone

    def close(self) -> None:
        """Cancel the rpc."""
        self._next.cancel()
        self._call.cancel()
        self._on_close()

    async def _texts(self, gone: asyncio.Future[None]) -> AsyncIterator[str]:
        """Yield the text of the stream until it ends."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        loop = asyncio.get_running_loop()
        written_at = loop.time()
        yield "retry: 3000\n\n"
        try:
            while True:
                await asyncio.wait(
                    {self._next, gone, stopping},
                    timeout=RECHECK_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if gone.done():
                    return
                if stopping.done() or not await self._still_allowed():
                    yield "event: end\ndata: {}\n\n"
                    return
                if self._next.done():
                    text, ended = _text_of(self._next)
                    yield text
                    if ended:
                        return
                    written_at = loop.time()
                    self._next = asyncio.ensure_future(_next(self._call))
                elif loop.time() - written_at >= HEARTBEAT_SECONDS - RECHECK_SECONDS / 2:
                    yield ": heartbeat\n\n"
                    written_at = loop.time()
        finally:
            stopping.cancel()


def event(response: Message) -> str:
    """Return *response* as an event; a message without event id becomes a heartbeat comment.

    Source:
        HTML, section 9.2.6 (interpreting an event stream).
    """
    event_id = _LINE_BREAKS.sub("", getattr(response, "event_id", ""))
    if not event_id:
        return ": heartbeat\n\n"
    return f"id: {event_id}\ndata: {encode(to_json(response)).decode()}\n\n"


def _text_of(done: asyncio.Future[Any]) -> tuple[str, bool]:
    """Return the text for the next message of the rpc, and whether it is the last."""
    try:
        response = done.result()
    except grpc.aio.AioRpcError as failed:
        if failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return (
                "event: end\ndata: {}\n\n",
                True,
            )  # The lifetime that the contract gives one connection.
        return _error(from_rpc_error(failed)), True
    except Exception as failed:
        return _error(as_mesh_error(failed) or MeshError(MESSAGES["INTERNAL"])), True
    if response is grpc.aio.EOF:
        return "event: end\ndata: {}\n\n", True
    return event(response), False


def _error(error: MeshError) -> str:
    return f"event: error\ndata: {encode(describe(error)).decode()}\n\n"


async def _next(call: Any) -> Any:
    return await call.read()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
