"""Publishes the key set over HTTP, for Envoy and for the verifiers in every service."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from mesh.chassis.server import StartError

PATH = "/.well-known/jwks.json"


class _Web(uvicorn.Server):
    """uvicorn without handlers for signals: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def published(listen: str, document: Callable[[], dict[str, object]]) -> AsyncIterator[None]:
    """
    Serve *document* at `PATH` while the body runs.

    Args:
        listen: ``unix:/run/keys.sock`` or ``127.0.0.1:3072``.
        document: Returns the key set as it is now.

    Raises:
        StartError: The address cannot be bound.
    """

    async def answer(_: Request) -> JSONResponse:
        return JSONResponse(document(), headers={"Cache-Control": "max-age=60"})

    application = Starlette(routes=[Route(PATH, answer)])
    config = uvicorn.Config(application, log_level="warning", access_log=False, lifespan="off")
    server = _Web(config)
    with contextlib.closing(_bind(listen)) as bound:
        task = asyncio.create_task(server.serve(sockets=[bound]))
        try:
            yield
        finally:
            server.should_exit = True
            await task
            _unbind(listen)


def _bind(listen: str) -> socket.socket:
    try:
        if listen.startswith("unix:"):
            return _bind_unix(Path(listen.removeprefix("unix:")))
        host, _, port = listen.rpartition(":")
        if not host or not 0 < int(port) < 65_536:
            raise ValueError("no HOST:PORT")
        return socket.create_server((host, int(port)), backlog=128)
    except (OSError, ValueError) as exc:
        raise StartError(
            f"AMARRE_AUTH_KEY_SET_LISTEN {listen!r} cannot be bound ({exc}); use HOST:PORT with a"
            " free port, or unix:/PATH in a folder that Auth may write to."
        ) from exc


def _unbind(listen: str) -> None:
    if listen.startswith("unix:"):
        Path(listen.removeprefix("unix:")).unlink(missing_ok=True)


def _bind_unix(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(os.fspath(path))
        bound.listen(128)
    except BaseException:
        bound.close()
        raise
    return bound
