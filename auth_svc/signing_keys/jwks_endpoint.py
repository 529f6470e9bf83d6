"""Publishes the key set over HTTP, for Envoy and for the verifiers in every service."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from mesh.chassis.background import background
from mesh.chassis.http_server import HttpServer
from mesh.chassis.server import StartError

PATH = "/.well-known/jwks.json"
CLAIM_SECONDS = 1.0


@contextlib.asynccontextmanager
async def serve_key_set(
    listen: str, document: Callable[[], dict[str, object]]
) -> AsyncIterator[None]:
    """Serve *document* at `PATH` while the body runs.

    Replicas may share a Unix socket path: each listens on its own socket, and the shared path is
    a symbolic link to one of them, moved to another when that one stops.

    Args:
        listen: ``unix:/run/keys.sock`` or ``127.0.0.1:3072``.
        document: Returns the current key set.

    Raises:
        StartError: The address cannot be bound.
    """

    async def answer(_: Request) -> JSONResponse:
        return JSONResponse(document(), headers={"Cache-Control": "max-age=60"})

    application = Starlette(routes=[Route(PATH, answer)])
    config = uvicorn.Config(application, log_level="warning", access_log=False, lifespan="off")
    server = HttpServer(config)
    async with contextlib.AsyncExitStack() as stack:
        try:
            bound = stack.enter_context(_bound(listen))
        except (OSError, ValueError) as exc:
            raise StartError(
                f"AMARRE_AUTH_KEY_SET_LISTEN {listen!r} cannot be bound ({exc}); use HOST:PORT"
                " with a free port, or unix:/PATH in a folder that Auth may write to."
            ) from exc
        if listen.startswith("unix:"):
            await stack.enter_async_context(
                background("key set socket", partial(_keep_claimed, _path(listen)))
            )
        task = asyncio.create_task(server.serve(sockets=[bound]))
        try:
            yield
        finally:
            server.request_stop()
            await task


@contextlib.contextmanager
def _bound(listen: str) -> Iterator[socket.socket]:
    if not listen.startswith("unix:"):
        host, _, port = listen.rpartition(":")
        if not host or not 0 < int(port) < 65_536:
            raise ValueError("not HOST:PORT")
        with socket.create_server((host, int(port)), backlog=128) as bound:
            yield bound
        return
    path = _path(listen)
    own = _own(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    own.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        bound.bind(os.fspath(own))
        try:
            bound.listen(128)
            _claim(path)
            yield bound
        finally:
            if path.is_symlink() and path.readlink() == own:
                path.unlink()
            own.unlink(missing_ok=True)


def _path(listen: str) -> Path:
    return Path(listen.removeprefix("unix:")).absolute()


def _own(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}")


def _claim(path: Path) -> None:
    """Point the shared path to this process, atomically."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.link")
    draft.unlink(missing_ok=True)
    draft.symlink_to(_own(path))
    draft.replace(path)


async def _keep_claimed(path: Path) -> None:
    """Claim the shared path whenever its target is gone."""
    while True:
        await asyncio.sleep(CLAIM_SECONDS)
        if not await _answers(path):
            _claim(path)


async def _answers(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True
