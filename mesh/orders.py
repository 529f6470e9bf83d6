"""
Orders to a running mesh: one JSON object in, JSON lines out, over a Unix socket.

Lines with ``told`` are progress; the last line has ``result`` or ``error``. The terminal and the
console give orders; the runner takes them.
"""

import asyncio
import contextlib
import getpass
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger("control")

_MOST_BYTES = 64 * 1024
Tell = Callable[[str], None]
"""Tells the person who gave the order how it goes."""
Order = Callable[[dict[str, Any], Tell], Awaitable[Any]]


Record = Callable[[str, dict[str, Any], str, str], None]
"""Keeps an order: its name, its arguments, who gave it, how it ended (empty: well)."""


class OrderError(Exception):
    """An order that cannot be carried out; the message says why and what to do."""


@contextlib.asynccontextmanager
async def listening(
    path: Path, orders: Mapping[str, Order], record: Record = lambda *_: None
) -> AsyncIterator[None]:
    """
    Take *orders* on the Unix socket *path* while the body runs; this user alone may connect.

    Each is given to *record* once it has ended.
    """
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(
            lambda reader, writer: _serve(reader, writer, orders, record),
            path,
            limit=_MOST_BYTES,
        )
    finally:
        os.umask(before)
    try:
        yield
    finally:
        server.close()


async def _serve(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    orders: Mapping[str, Order],
    record: Record,
) -> None:
    def send(**line: Any) -> None:
        writer.write(json.dumps(line).encode() + b"\n")

    try:
        asked = json.loads(await reader.readline())
        name, by = asked.pop("order"), str(asked.pop("by", ""))
        order = orders[name]
        fault = "It ended before its time."
        try:
            result = await order(asked, lambda text: send(told=text))
            fault = ""
        except OrderError as error:
            fault = str(error)
            raise
        finally:
            record(name, asked, by, fault)
        send(result=result)
    except OrderError as error:
        send(error=str(error))
    except Exception:
        log.exception("order failed")
        send(error="Something unexpected happened; the log of `amarre up` has the details.")
    with contextlib.suppress(ConnectionError):
        await writer.drain()
        writer.close()


async def give(path: Path, order: str, tell: Tell, *, by: str, **arguments: Any) -> Any:
    """
    Give an order to whoever listens on the Unix socket *path*; returns its result.

    Args:
        path: The socket.
        order: The order's name.
        tell: Is told how it goes.
        by: Who gives it, for the journal.
        arguments: What the order needs.

    Raises:
        OrderError: The order cannot be carried out.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError as exc:
        raise OrderError(f"The mesh takes no orders on {path}: {exc}.") from exc
    writer.write(json.dumps({"order": order, "by": by, **arguments}).encode() + b"\n")
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


def this_user() -> str:
    """Return the name of the user who runs this process; the number, where there is no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid-{os.getuid()}"
