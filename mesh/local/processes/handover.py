"""Hand over a listening port to a successor process without resetting connections, and drain.

Both listen on the port with SO_REUSEPORT, and the kernel distributes new connections between them.
When the old one stops listening, the connections in its accept queue are reset (unless the
system-wide setting ``net.ipv4.tcp_migrate_req`` is on). So new connections are first redirected to
the successor, then the old process accepts its remaining ones, and only then is it drained.

Source:
    socket(7), SO_ATTACH_REUSEPORT_CBPF; pidfd_getfd(2); tcp(7), TCP_INFO.
"""

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog

from mesh.local.processes import envoy
from mesh.local.processes.envoy import Admin, EnvoyError
from mesh.render.envoy import Proxy

log = structlog.get_logger("handover")

_PIDFD_GETFD = 438
_ATTACH_CBPF, _DETACH_BPF = 51, 68
_RETURN_CONSTANT = 0x06
"""BPF_RET | BPF_K: the program's result, the index of a socket in the group."""
_QUEUE_OFFSET = 24
"""``tcpi_unacked``, which for a listening socket is the length of its accept queue."""
QUIET_SECONDS = 3.0
"""How long calls in flight may continue before their process is asked to end them."""
IDLE_SECONDS = 8.0
"""How long idle connections of browsers may stay open before they are closed."""
_CALLS = "^http[.](inbound|edge_https?)[.]downstream_rq_active$"
_CONNECTIONS = "^http[.]edge_https?[.]downstream_cx_active$"
_EMPTY_SECONDS = 5.0
_HANDSHAKE_SECONDS = 0.2
"""How long handshakes started on the old socket may take to reach its accept queue."""
_POLL_SECONDS = 0.02
_libc = ctypes.CDLL(None, use_errno=True)


async def redirect_connections(
    old_pid: int, new_pid: int, ports: Iterable[int], *, listeners: int = 2
) -> None:
    """Direct new connections on *ports* to *new_pid*; wait until *old_pid* has accepted the rest.

    If the kernel does not permit it, the ports are left unchanged and a warning is logged.

    Args:
        old_pid: The process that stops listening afterwards.
        new_pid: The process that started listening last.
        ports: TCP ports on which both listen.
        listeners: Number of processes listening on each port, including these two.
    """
    wanted = frozenset(ports)
    try:
        with _listening(new_pid, wanted) as successors:
            for one in successors:
                _attach(one, listeners - 1)
        with _listening(old_pid, wanted) as sockets:
            await asyncio.sleep(_HANDSHAKE_SECONDS)
            deadline = asyncio.get_running_loop().time() + _EMPTY_SECONDS
            while any(map(_waiting, sockets)):
                if asyncio.get_running_loop().time() > deadline:
                    break
                await asyncio.sleep(_POLL_SECONDS)
    except OSError as exc:
        log.warning("connections may be reset while a listener is replaced", reason=str(exc))


def stop_redirecting(pid: int, ports: Iterable[int]) -> None:
    """Let the kernel choose again among the listeners on *ports* of *pid*."""
    with contextlib.suppress(OSError), _listening(pid, frozenset(ports)) as sockets:
        for one in sockets:
            # Fails if no program is attached.
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, _DETACH_BPF, 0)


async def drain(proxy: Proxy) -> bool:
    """Make *proxy* stop accepting connections and ask its clients to disconnect.

    Returns:
        Whether no call is in flight any more; long-lived streams may outlast the wait.
    """
    loop = asyncio.get_running_loop()
    with contextlib.suppress(EnvoyError):
        async with Admin(proxy.admin) as admin:
            await admin.post("/drain_listeners?graceful&skip_exit")
            await asyncio.sleep(envoy.DRAIN_SECONDS + 0.5)
            # A browser may send another request on an idle connection just when it is
            # closed; so wait for the connections of the edge.
            wanted = _CALLS if proxy.edge is None else _CONNECTIONS
            quiet_by = loop.time() + (QUIET_SECONDS if proxy.edge is None else IDLE_SECONDS)
            while loop.time() < quiet_by:
                if not any((await admin.counters(wanted)).values()):
                    return True
                await asyncio.sleep(_POLL_SECONDS)
            return not any((await admin.counters(_CALLS)).values())
    log.info("streams outlast the drain", proxy=proxy.name)
    return False


@contextlib.contextmanager
def _listening(pid: int, ports: frozenset[int]) -> Iterator[list[socket.socket]]:
    """Duplicate the sockets on which process *pid* listens, for the duration of the block.

    Raises:
        OSError: The process has ended, or the kernel does not permit it.
    """
    with contextlib.ExitStack() as stack:
        process = os.pidfd_open(pid)
        stack.callback(os.close, process)
        found = []
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if not str(entry.readlink()).startswith("socket:"):
                    continue
                duplicate = _duplicate(process, int(entry.name))
                one = stack.enter_context(socket.socket(fileno=duplicate))
                if _listens_on(one, ports):
                    found.append(one)
        yield found


def _duplicate(process: int, descriptor: int) -> int:
    result = int(_libc.syscall(_PIDFD_GETFD, process, descriptor, 0))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"pidfd_getfd: {os.strerror(number)}")
    return result


def _listens_on(one: socket.socket, ports: frozenset[int]) -> bool:
    return (
        one.family in {socket.AF_INET, socket.AF_INET6}
        and one.type == socket.SOCK_STREAM
        and bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        and one.getsockname()[1] in ports
    )


def _attach(one: socket.socket, index: int) -> None:
    """Make the kernel choose the socket *index* of the group to which *one* belongs.

    Sockets of a group are numbered in the order in which they started listening.
    """
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", _RETURN_CONSTANT, 0, 0, index))
    program = struct.pack("HxxxxxxP", 1, ctypes.addressof(instruction))
    one.setsockopt(socket.SOL_SOCKET, _ATTACH_CBPF, program)


def _waiting(one: socket.socket) -> int:
    """Return the number of connections waiting to be accepted."""
    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    (count,) = struct.unpack_from("I", info, _QUEUE_OFFSET)
    return int(count)
