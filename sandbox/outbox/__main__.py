"""``python -m sandbox.outbox --http HOST:PORT --smtp HOST:PORT --database FILE``."""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import ssl
import sys
from pathlib import Path

import uvicorn

from sandbox import logs
from sandbox.http_server import HttpServer
from sandbox.outbox import smtp, web
from sandbox.outbox.store import Store


class CannotStartError(Exception):
    """The outbox cannot start; the message says why and what to do."""


def main() -> None:
    """Run the outbox until SIGTERM or SIGINT."""
    arguments = _parser().parse_args()
    logs.write_json()
    try:
        if os.environ.get("AMARRE_ENV") == "production":
            raise CannotStartError("The outbox delivers no mail; it must not run in production.")
        asyncio.run(
            run(
                http=_address(arguments.http, "--http"),
                smtp_at=_address(arguments.smtp, "--smtp"),
                database=arguments.database,
                tls=_tls(arguments.certificate, arguments.key),
            )
        )
    except CannotStartError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


async def run(
    *,
    http: tuple[str, int],
    smtp_at: tuple[str, int],
    database: Path,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        CannotStartError: An address cannot be bound or the file cannot be used.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with _bound(http, "--http") as listener, contextlib.closing(_open(database)) as store:
        try:
            mails = await smtp.listen(store, *smtp_at, tls=tls)
        except OSError as exc:
            raise _cannot_bind(smtp_at, "--smtp", exc) from exc
        config = uvicorn.Config(web.app(store), log_config=None, access_log=False, lifespan="off")
        server = HttpServer(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        async with mails:
            await stop.wait()
        server.request_stop()
        await serving


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox.outbox", description=__doc__)
    parser.add_argument("--http", default="127.0.0.1:3011", metavar="HOST:PORT")
    parser.add_argument("--smtp", default="127.0.0.1:3012", metavar="HOST:PORT")
    parser.add_argument("--database", type=Path, default=Path("outbox.db"), metavar="FILE")
    parser.add_argument(
        "--certificate", type=Path, metavar="FILE", help="require STARTTLS with this certificate"
    )
    parser.add_argument("--key", type=Path, metavar="FILE", help="the private key of --certificate")
    return parser


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise CannotStartError("Give both --certificate and --key, or neither.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as exc:
        raise CannotStartError(
            f"--certificate {certificate} and --key {key} cannot be used ({exc.strerror or exc}): "
            "give a certificate and its private key as PEM files."
        ) from exc
    return context


def _address(text: str, option: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise CannotStartError(f"{option} {text!r} is not HOST:PORT, for example 127.0.0.1:3011.")
    return host, int(port)


def _bound(address: tuple[str, int], option: str) -> socket.socket:
    try:
        listener = socket.create_server(address, backlog=128)
    except OSError as exc:
        raise _cannot_bind(address, option, exc) from exc
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Connections inherit it.
    return listener


def _cannot_bind(address: tuple[str, int], option: str, exc: OSError) -> CannotStartError:
    return CannotStartError(
        f"{option} {address[0]}:{address[1]} cannot be used ({os.strerror(exc.errno or 0)}): "
        "stop the other program or choose another port."
    )


def _open(database: Path) -> Store:
    try:
        return Store(database)
    except sqlite3.Error as exc:
        raise CannotStartError(
            f"--database {database} cannot be used ({exc}): choose a file in a writable folder."
        ) from exc


if __name__ == "__main__":
    main()
