"""Control protocol of a running mesh: one JSON request, JSON lines back, over a Unix socket.

The first line is ``accepted``. Lines with ``progress`` report how an action goes; the last line has
``result`` or ``error``. The terminal and the console send actions; the runner of a local mesh
carries them out.
"""

import asyncio
import contextlib
import getpass
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger("control")

ACCEPT_SECONDS = 10.0
"""How long a client waits until its action is accepted; a busy machine stalls for seconds."""
_MOST_BYTES = 64 * 1024
_MOST_ANSWER_BYTES = 16 * 1024 * 1024
Progress = Callable[[str], None]
"""Shows a progress message to the person who asked for the action."""
Action = Callable[[dict[str, Any], Progress], Awaitable[Any]]
"""Carries out one action with the given arguments; returns its result as JSON values."""
RecordAction = Callable[[str, dict[str, Any], str, str], None]
"""Records an action: its name, its arguments, who sent it, its error (empty on success)."""


class ControlError(Exception):
    """An action cannot be carried out; the message says why and what to do."""


class ActionServer:
    """Serves actions on a Unix socket to which only the current user can connect."""

    def __init__(self, path: Path, actions: Mapping[str, Action], record: RecordAction) -> None:
        self._path = path
        self._actions = actions
        self._record = record
        self._server: asyncio.Server | None = None
        self._bound: os.stat_result | None = None

    async def listen(self) -> None:
        """Create the socket; does nothing if it is in its place.

        Raises:
            OSError: It cannot be created.
        """
        with contextlib.suppress(FileNotFoundError):
            if self._bound is not None and os.path.samestat(self._bound, self._path.stat()):
                return
        self.close()
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(before)
        self._bound = self._path.stat()
        self._server = await asyncio.start_unix_server(
            lambda reader, writer: _serve(reader, writer, self._actions, self._record),
            sock=listener,
            limit=_MOST_BYTES,
        )

    def close(self) -> None:
        """Accept no more connections."""
        if self._server is not None:
            self._server.close()


@contextlib.asynccontextmanager
async def serve_actions(
    path: Path, actions: Mapping[str, Action], record: RecordAction = lambda *_: None
) -> AsyncIterator[ActionServer]:
    """Serve *actions* on the Unix socket *path* while the body runs.

    Each action is passed to *record* when it has ended.
    """
    server = ActionServer(path, actions, record)
    await server.listen()
    try:
        yield server
    finally:
        server.close()


async def _serve(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    actions: Mapping[str, Action],
    record: RecordAction,
) -> None:
    def send(**line: Any) -> None:
        writer.write(json.dumps(line).encode() + b"\n")

    try:
        request = await reader.readline()
        send(accepted=True)
        try:
            await writer.drain()
        except ConnectionError:
            log.warning("control action dropped: its sender has left")
            return
        arguments = json.loads(request)
        name, by = arguments.pop("action"), str(arguments.pop("by", ""))
        action = actions[name]
        fault = "It was interrupted."
        try:
            result = await action(arguments, lambda text: send(progress=text))
            fault = ""
        except ControlError as error:
            fault = str(error)
            raise
        finally:
            record(name, arguments, by, fault)
        send(result=result)
    except ControlError as error:
        send(error=str(error))
    except Exception:
        log.exception("control action failed")
        send(error="An unexpected error occurred; the log of `amarre up` has the details.")
    with contextlib.suppress(ConnectionError):
        await writer.drain()
        writer.close()


async def send_action(
    path: Path, name: str, progress: Progress = lambda _: None, /, *, by: str, **arguments: Any
) -> Any:
    """Send an action to the mesh that serves the Unix socket *path*; returns its result.

    Args:
        path: The socket.
        name: The action's name, for instance ``canary start``.
        progress: Receives progress messages.
        by: Who sends it, for the audit log.
        arguments: The arguments of the action.

    Raises:
        ControlError: The action cannot be carried out, or is not accepted within `ACCEPT_SECONDS`.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=_MOST_ANSWER_BYTES)
    except OSError as exc:
        raise ControlError(f"No mesh accepts control actions on {path}: {exc}.") from exc
    writer.write(json.dumps({"action": name, "by": by, **arguments}).encode() + b"\n")
    try:
        await _accepted(reader)
        async for line in reader:
            answer = json.loads(line)
            if "progress" in answer:
                progress(answer["progress"])
            elif "error" in answer:
                raise ControlError(answer["error"])
            else:
                return answer["result"]
    finally:
        writer.close()
    raise ControlError("The mesh stopped before the action was complete.")


async def _accepted(reader: asyncio.StreamReader) -> None:
    """Wait for the first line.

    Raises:
        ControlError: It does not arrive in time.
    """
    try:
        async with asyncio.timeout(ACCEPT_SECONDS):
            await reader.readline()
    except TimeoutError as exc:
        raise ControlError(
            "`amarre up` does not respond; nothing changed. Continue it if it was suspended, for "
            "example with Ctrl-Z, or stop and start it again."
        ) from exc


def current_user() -> str:
    """Return the name of the user who runs this process, or the user id if it has no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid-{os.getuid()}"
