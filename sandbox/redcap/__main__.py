"""Composition root: command line -> store -> application -> server."""

import asyncio
import os
import signal
import socket
import sys

import structlog
import uvicorn

from sandbox import logs
from sandbox.http_server import HttpServer
from sandbox.redcap import config, setup
from sandbox.redcap.app import Sandbox
from sandbox.redcap.config import Config, ConfigError

_GRACE_SECONDS = 1


def _bind(settings: Config) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Without the protocol, asyncio leaves Nagle's algorithm on: 40 ms more per short response.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(256)
    except OSError as exc:
        listener.close()
        raise ConfigError(
            f"Cannot listen on {settings.host}:{settings.port}: {exc.strerror}. "
            "Stop the program that uses the port, or choose another with --listen."
        ) from exc
    return listener


async def _serve(settings: Config, listener: socket.socket) -> None:
    store = setup.open_store(settings)
    stopping = asyncio.Event()
    app = Sandbox(store, base_url=settings.base_url, stopping=stopping).app()
    server = HttpServer(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )

    def stop() -> None:
        stopping.set()
        server.request_stop()

    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, stop)
    log = structlog.get_logger("sandbox.redcap")
    log.info("sandbox listening", host=settings.host, port=settings.port)
    try:
        await server.serve(sockets=[listener])
    finally:
        store.close()
        log.info("sandbox stopped")


def main() -> int:
    """Run until stopped; return 2 if the server cannot start."""
    logs.write_json()
    try:
        settings = config.read(sys.argv[1:], os.environ)
        listener = _bind(settings)
        with listener:
            asyncio.run(_serve(settings, listener))
    except ConfigError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
