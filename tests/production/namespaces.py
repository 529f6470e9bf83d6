"""Network namespaces, for which Python 3.11 has no functions."""

import ctypes
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
"""See setns(2)."""


def enter(namespace: int) -> None:
    """Move this thread, and the programs it starts, to the network namespace of a file."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def inside(namespace: Path, function: Callable[[], T]) -> T:
    """Return the result of *function* in the network namespace of a file."""

    def run() -> T:
        with namespace.open() as file:
            enter(file.fileno())
        return function()

    # A thread of its own ends with its namespace.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def listener(namespace: Path, port: int) -> socket.socket:
    """Return a socket that listens on the loopback address of another network."""
    return inside(namespace, lambda: socket.create_server(("127.0.0.1", port)))
