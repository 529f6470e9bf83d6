"""
Orders to a running mesh: one JSON object in, JSON lines out, over a Unix socket.

Lines with ``told`` are progress; the last line has ``result`` or ``error``.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from mesh.local.layout import Layout
from mesh.local.running import ready

log = structlog.get_logger("control")

_MOST_BYTES = 64 * 1024
Tell = Callable[[str], None]
"""Tells the person who gave the order how it goes."""
Order = Callable[[dict[str, Any], Tell], Awaitable[Any]]


class OrderError(Exception):
    """An order that cannot be carried out; the message says why and what to do."""


@contextlib.asynccontextmanager
async def listening(path: Path, orders: Mapping[str, Order]) -> AsyncIterator[None]:
    """Take *orders* on the Unix socket *path* while the body runs; this user alone may connect."""
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(
            lambda reader, writer: _serve(reader, writer, orders), path, limit=_MOST_BYTES
        )
    finally:
        os.umask(before)
    try:
        yield
    finally:
        server.close()


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, orders: Mapping[str, Order]
) -> None:
    def send(**line: Any) -> None:
        writer.write(json.dumps(line).encode() + b"\n")

    try:
        asked = json.loads(await reader.readline())
        order = orders[asked.pop("order")]
        send(result=await order(asked, lambda text: send(told=text)))
    except OrderError as error:
        send(error=str(error))
    except Exception:
        log.exception("order failed")
        send(error="Something unexpected happened; the log of `amarre up` has the details.")
    with contextlib.suppress(ConnectionError):
        await writer.drain()
        writer.close()


async def give(layout: Layout, order: str, tell: Tell, **arguments: Any) -> Any:
    """
    Give an order to the mesh that runs from *layout*; returns its result.

    Raises:
        NotRunningError: None runs.
        OrderError: The order cannot be carried out.
    """
    ready(layout)
    try:
        reader, writer = await asyncio.open_unix_connection(layout.control)
    except OSError as exc:
        raise OrderError(f"The mesh of {layout.data} takes no orders: {exc}.") from exc
    writer.write(json.dumps({"order": order, **arguments}).encode() + b"\n")
    try:
        async for line in reader:
            answer = json.loads(line)
            if "told" in answer:
                tell(answer["told"])
            elif "error" in answer:
                raise OrderError(answer["error"])
            else:
                return answer["result"]
    finally:
        writer.close()
    raise OrderError("The mesh stopped before it had carried out the order.")
