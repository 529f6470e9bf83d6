"""A fork server: starts Python processes by forking one that has imported their modules already.

Importing gRPC, OpenTelemetry and SQLAlchemy costs each process a second or two and 60 MB. The fork
server does it once; the processes that it forks share that memory until they write to it. They are
children of the runner, as if it had executed them: the server forks twice, and the kernel hands the
orphan to the runner, which is its subreaper (``man 2 prctl``).
"""

import asyncio
import contextlib
import ctypes
import errno
import gc
import json
import os
import runpy
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import setproctitle

_IMPORTED_LATER = (
    "aiosqlite.core",
    "anyio._backends._asyncio",
    "httpcore",
    "mesh.chassis.telemetry.otlp_metrics",
    "opentelemetry.exporter.otlp.proto.grpc._log_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.metric_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "opentelemetry.instrumentation.grpc._aio_server",
    "uvicorn.protocols.http.httptools_impl",
)
"""What several processes import only when they need it, which is always soon."""
_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36
ANSWER_SECONDS = 60.0
"""How long a process may take to be forked; the first waits until the modules are imported."""
_MOST_BYTES = 256 * 1024
_ADOPTED_SECONDS = 0.0005
_libc = ctypes.CDLL(None, use_errno=True)


class ForkServerError(Exception):
    """The fork server has ended; processes must be started without it."""


class ForkedProcess:
    """A process that the server started, with what the supervisor needs of asyncio's `Process`."""

    def __init__(self, pid: int) -> None:
        """Watch the child process *pid*."""
        self.pid = pid
        self.returncode: int | None = None
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._descriptor = os.pidfd_open(pid)
        self._loop.add_reader(self._descriptor, self._end)

    async def wait(self) -> int:
        """Wait until it ends; returns its exit status, or minus the signal that killed it."""
        return int(await asyncio.shield(self._ended))

    def _end(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set_result(self.returncode)


class ForkServer:
    """The runner's end of a fork server."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        """Talk to the fork server *pid* over *connection*."""
        self._connection = connection
        self._pid = pid
        self._one_by_one = asyncio.Lock()
        self._ended = False

    @classmethod
    def begin(cls, modules: Sequence[str], environment: Mapping[str, str]) -> "ForkServer":
        """Fork this program; call it while there is one thread, and nothing is open or locked.

        In a process that the server starts, this call does not return: it exits with its module.

        Args:
            modules: What the server imports, in addition to what this program has imported.
            environment: What these modules may read while they are imported.

        Raises:
            OSError: The system has no resources left.
        """
        _libc.prctl(_SET_CHILD_SUBREAPER, 1)
        _share_objects()
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        runner = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _end_with(runner)
            os.setsid()
            sys.exit(_run(its, modules, environment))
        its.close()
        ours.settimeout(0)
        return cls(ours, pid)

    @property
    def runs(self) -> bool:
        """Whether it can start processes; afterwards, they must be started without it."""
        return not self._ended

    async def start(
        self, command: Sequence[str], environment: Mapping[str, str], output: int
    ) -> ForkedProcess:
        """Start ``python -m MODULE ARGUMENTS``, in a session of its own.

        Args:
            command: The whole command, Python included.
            environment: All of its variables.
            output: The file descriptor that becomes its standard output and error.

        Raises:
            ForkServerError: The server has ended, or hung and was ended.
            OSError: The system has no resources left.
        """
        request = {"command": command, "environment": dict(environment), "runner": os.getpid()}
        async with self._one_by_one:
            try:
                socket.send_fds(self._connection, [json.dumps(request).encode()], [output])
                async with asyncio.timeout(ANSWER_SECONDS):
                    loop = asyncio.get_running_loop()
                    answer = await loop.sock_recv(self._connection, _MOST_BYTES)
            except (ConnectionError, TimeoutError):
                answer = b""
        if not answer:
            self.stop()
            raise ForkServerError
        found = json.loads(answer)
        if "errno" in found:
            raise OSError(found["errno"], os.strerror(found["errno"]))
        return ForkedProcess(found["pid"])

    def stop(self) -> None:
        """End the server, even one that hangs; what it has started continues."""
        if self._ended:
            return
        self._ended = True
        self._connection.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent dies, however it dies."""
    _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def _end_with(parent: int) -> None:
    die_with_parent()
    if os.getppid() != parent:
        sys.exit("the runner has ended")


def _run(connection: socket.socket, modules: Sequence[str], environment: Mapping[str, str]) -> int:
    """Be the fork server, or a process that it starts; returns the exit status."""
    try:
        # Before the environment changes: the title's place is found beside the first one.
        setproctitle.setproctitle("amarre up: fork server")
        _set_environment(environment)
        for module in (*modules, *_IMPORTED_LATER):
            import_module(module)
        # Read once: every process inherits the context.
        import_module("mesh.chassis.telemetry.clients").public_roots()
        _share_objects()
        if request := _serve(connection):
            _become(request)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for each request until the runner hangs up.

    Returns:
        In a new process, the request that it is to fulfil; in the server, None at the end.
    """
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, _MOST_BYTES, 1)
        if not message:
            return None
        (output,) = descriptors
        try:
            pid = _fork_twice()
        except OSError as exc:
            connection.send(json.dumps({"errno": exc.errno}).encode())
            pid = -1
        if pid == 0:
            connection.close()
            for descriptor, number in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1)):
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.dup2(1, 2)
            return dict(json.loads(message))
        os.close(output)
        if pid > 0:
            connection.send(json.dumps({"pid": pid}).encode())


def _fork_twice() -> int:
    """Fork a process that the runner adopts; returns its id, and 0 in the process itself.

    Raises:
        OSError: The system has no resources left.
    """
    reader, writer = os.pipe()
    try:
        middle = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    if middle == 0:
        middle = os.getpid()
        try:
            pid = os.fork()
        except OSError as exc:
            pid = -(exc.errno or errno.EAGAIN)
        if pid != 0:
            os.write(writer, str(pid).encode())
            os._exit(0)
        os.close(reader)
        os.close(writer)
        while os.getppid() == middle:
            time.sleep(_ADOPTED_SECONDS)
        return 0
    # The runner gets to know the process once it is its own: a child can be waited for.
    os.waitpid(middle, 0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        pid = int(answer.read())
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid))
    return pid


def _become(request: dict[str, Any]) -> None:
    """Run the module of *request* in this process as ``python -m`` would."""
    _end_with(request["runner"])
    os.setsid()
    _set_environment(request["environment"])
    _, _, module, *arguments = command = request["command"]
    setproctitle.setproctitle(" ".join(command))
    sys.argv = [module, *arguments]
    # What was imported under this name is not the module that runpy executes.
    sys.modules.pop(f"{module}.__main__", None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _share_objects() -> None:
    """Keep the collector from writing to the objects there are, which would copy their pages."""
    gc.collect()
    gc.freeze()


def _set_environment(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
