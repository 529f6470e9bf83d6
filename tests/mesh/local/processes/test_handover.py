"""Handover of a listening port to a successor."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from mesh.local.processes.handover import redirect_connections, stop_redirecting

_OLD = """
import signal, socket
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
one = socket.socket()
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
one.bind(("127.0.0.1", 0))
one.listen(128)
print(one.getsockname()[1], flush=True)
signal.sigwait([signal.SIGUSR1])
while True:
    one.accept()[0].close()
"""


@pytest.fixture
def old() -> Iterator[subprocess.Popen[str]]:
    """A process that listens but accepts nothing before SIGUSR1."""
    with subprocess.Popen(
        [sys.executable, "-c", _OLD], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        yield process
        process.kill()


class TestRedirect:
    async def test_connections_go_to_the_successor_and_none_is_left(
        self, old: subprocess.Popen[str]
    ) -> None:
        """
        New connections reach only the successor, and the old process is awaited until it has
        accepted those in its queue, which the kernel would reset when it stops listening.
        """
        assert old.stdout is not None
        port = int(old.stdout.readline())
        with ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            new = stack.enter_context(_listener(port))
            redirecting = asyncio.create_task(redirect_connections(old.pid, os.getpid(), [port]))
            await asyncio.sleep(0.5)
            assert not redirecting.done()

            for _ in range(40):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            assert 40 == _accepted(new)

            old.send_signal(signal.SIGUSR1)
            await asyncio.wait_for(redirecting, 4)

    async def test_kernel_spreads_connections_again_afterwards(
        self, old: subprocess.Popen[str]
    ) -> None:
        """Without a redirection, both processes get connections: the control of the test above."""
        assert old.stdout is not None
        port = int(old.stdout.readline())
        old.send_signal(signal.SIGUSR1)
        with ExitStack() as stack:
            new = stack.enter_context(_listener(port))
            await redirect_connections(old.pid, os.getpid(), [port])
            stop_redirecting(os.getpid(), [port])

            for _ in range(60):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))

            assert 0 < _accepted(new) < 60

    async def test_process_that_is_gone(self, old: subprocess.Popen[str]) -> None:
        """If the old process has died, nothing is redirected and nothing fails."""
        old.kill()
        old.wait()

        await redirect_connections(old.pid, os.getpid(), [1])


def _listener(port: int) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind(("127.0.0.1", port))
    one.listen(128)
    one.settimeout(0.3)
    return one


def _accepted(one: socket.socket) -> int:
    count = 0
    try:
        while True:
            one.accept()[0].close()
            count += 1
    except TimeoutError:
        return count
