"""``python -m sandbox.appwrite --listen HOST:PORT --key-file FILE [--smtp HOST:PORT]``."""

import argparse
import os
import secrets
import socket
import sys
from pathlib import Path

import uvicorn

from sandbox.appwrite.app import SCOPES, create


class CannotStartError(Exception):
    """The sandbox cannot start; the message says why and what to do."""


def main() -> None:
    """Run the sandbox until SIGTERM or SIGINT."""
    arguments = _parser().parse_args()
    try:
        if os.environ.get("AMARRE_ENV") == "production":
            raise CannotStartError("The Appwrite sandbox must not run in production.")
        app = create(
            arguments.project,
            _key(arguments.key_file),
            scopes=tuple(arguments.scopes.split(",")),
            smtp=_address(arguments.smtp, "--smtp") if arguments.smtp else None,
        )
        listener = _bind(_address(arguments.listen, "--listen"))
    except CannotStartError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    with listener:
        config = uvicorn.Config(app, log_level="warning", lifespan="off", server_header=False)
        uvicorn.Server(config).run(sockets=[listener])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox.appwrite", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:3013", metavar="HOST:PORT")
    parser.add_argument("--project", default="amarre", metavar="ID")
    parser.add_argument("--key-file", type=Path, required=True, metavar="FILE")
    parser.add_argument("--scopes", default=",".join(SCOPES), metavar="LIST")
    parser.add_argument("--smtp", default="", metavar="HOST:PORT")
    return parser


def _key(path: Path) -> str:
    """Return the API key in *path*; create the file if it is missing."""
    try:
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(f"standard_{secrets.token_hex(32)}\n")
        return path.read_text().strip()
    except OSError as exc:
        raise CannotStartError(f"--key-file {path}: {exc.strerror}.") from exc


def _address(text: str, option: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise CannotStartError(f"{option} {text!r} is not HOST:PORT, for example 127.0.0.1:3013.")
    return host, int(port)


def _bind(address: tuple[str, int]) -> socket.socket:
    try:
        listener = socket.create_server(address, backlog=128)
    except OSError as exc:
        raise CannotStartError(
            f"--listen {address[0]}:{address[1]} cannot be used ({os.strerror(exc.errno or 0)}):"
            " stop the other program or choose another port."
        ) from exc
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Connections inherit it.
    return listener


if __name__ == "__main__":
    main()
