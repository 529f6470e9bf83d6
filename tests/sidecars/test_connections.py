"""
One client that opens as many connections as a proxy takes: the others are served soon after, and
the proxy stays within its memory.
"""

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import pytest
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1 import survey_service_pb2_grpc as rpc

from mesh.render.envoy import overload
from tests.sidecars.support.bed import Bed, bearer
from tests.sidecars.support.surveys import Surveys
from tests.sidecars.test_edge import front

pytestmark = pytest.mark.envoy

OPEN_AGAIN_SECONDS = 9.0
"""Below every timeout that applies without memory pressure, of which the shortest is 10 s."""
GOOD = "127.0.0.2"
REQUEST = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
HALF = b"POST /api/v1/auth/signup HTTP/1.1\r\nhost: localhost\r\ncontent-length: 60000\r\n\r\n{"


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[int]:
    """Allow as many open files as the system lets this process have, and its children."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def crowd(port: int, count: int, first: bytes) -> Iterator[list[socket.socket]]:
    """Hold *count* connections of one client, each of which has sent *first*."""
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(count):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            with contextlib.suppress(ConnectionError):  # The proxy may have refused it already.
                one.sendall(first)
            held.append(one)
        yield held


async def served(port: int) -> bool:
    """Return whether a new connection of another client gets a response."""
    with contextlib.suppress(OSError, TimeoutError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(GOOD, 0))
        with contextlib.closing(writer):
            writer.write(REQUEST)
            return (await asyncio.wait_for(reader.read(100), 2)).startswith(b"HTTP/1.1 200")
    return False


async def seconds_until(holds: Callable[[], Awaitable[bool]], within: float) -> float:
    """Return after how many seconds *holds* is true for a second; at most *within* and one."""
    started = since = time.monotonic()
    while (now := time.monotonic()) < started + within + 1:
        if not await holds():
            since = time.monotonic()
        elif now > since + 1:
            break
        await asyncio.sleep(0.05)
    return since - started


@pytest.mark.parametrize(
    ("first", "secure"),
    [
        pytest.param(b"", False, id="silent"),
        pytest.param(REQUEST[:-4], False, id="half a header"),
        pytest.param(HALF, False, id="half a body"),
        pytest.param(REQUEST, False, id="idle"),
        pytest.param(b"", True, id="no handshake"),
    ],
)
async def test_edge(bed: Bed, descriptors: int, first: bytes, *, secure: bool) -> None:
    """
    A client that takes every connection of the edge, and keeps them, is not in the way for long.

    Envoy has no limit per address. It reports no pressure for the number of connections either, so
    that timeouts that should shrink with it stay as they are; memory shortens them.

    Source:
        Envoy, overload manager; RFC 9110, section 15.5.9, and RFC 9112, section 9.5.
    """
    count = min(overload.EDGE.connections + 300, descriptors - 500)
    async with front(bed, rate_limits=True) as edge:
        taken = int(edge.edge.https.rpartition(":")[2]) if secure else edge.port
        with crowd(taken, count, first):
            blocked = await seconds_until(lambda: served(edge.port), OPEN_AGAIN_SECONDS)
        status = Path(f"/proc/{edge.envoy.process.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024

    assert OPEN_AGAIN_SECONDS > blocked
    assert overload.EDGE.memory_bytes > peak


async def test_mesh_port(bed: Bed) -> None:
    """Connections without a TLS handshake do not keep callers from a service for long."""
    survey = await bed.service(Surveys())
    port = int(survey.proxy.inbound.rpartition(":")[2])

    with crowd(port, overload.INNER.connections + 300, b""):
        async with bed.through(await bed.caller()) as channel:
            stub = rpc.SurveyServiceStub(channel)

            async def answers() -> bool:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer(), timeout=2)
                    return True
                return False

            blocked = await seconds_until(answers, OPEN_AGAIN_SECONDS)

    assert OPEN_AGAIN_SECONDS > blocked
