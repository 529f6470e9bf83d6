"""Network namespaces, which Python 3.11 has no calls for."""

import ctypes
import socket
import threading
from pathlib import Path

_CLONE_NEWNET = 0x40000000
"""See setns(2)."""


def enter(namespace: int) -> None:
    """Move this thread, and the programs that it starts, to the network namespace of a file."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def listener(namespace: Path, port: int) -> socket.socket:
    """Return a socket that listens on the loopback address of another network."""
    made = []

    def make() -> None:
        with namespace.open() as file:
            enter(file.fileno())
        made.append(socket.create_server(("127.0.0.1", port)))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]
