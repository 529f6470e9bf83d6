"""A client that sends requests and measures what they cost: CPU time, rates and latencies."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import cycle
from pathlib import Path

import psutil

from benchmarks.harness.processes import cpu_seconds
from mesh.contract.wire import SESSION_COOKIE

OUTSIDE = ("redcap", "outbox")
"""The sandbox's processes, which stand for systems outside of the mesh."""
IDLE_SECONDS = 10.0
_ATTEMPTS = 5
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_EXPECTED = {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}


class UnexpectedAnswerError(Exception):
    """A response is neither 200 nor a refusal under load; the message has its status."""


@dataclass
class Side:
    """One side of a comparison: its address and its processes."""

    name: str
    port: int
    processes: dict[str, psutil.Process]
    cookie: str = ""
    urls: dict[str, str] = field(default_factory=dict)
    """Where the product is, by name; empty for bare parts."""
    data: Path = Path()
    """The product's data folder."""
    idle: dict[str, float] = field(default_factory=dict)
    """CPU seconds per second that each process uses without requests."""

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds that each process has used."""
        return {name: cpu_seconds(process) for name, process in self.processes.items()}

    @property
    def idle_percent(self) -> float:
        """Share of a core that all processes use without requests, without the sandbox."""
        return 100 * sum(share for name, share in self.idle.items() if name not in OUTSIDE)


@dataclass(frozen=True)
class Workload:
    """Requests that are sent in turn, and the name that tables use."""

    name: str
    requests: Iterator[bytes]
    slices: int = 1
    """How many times as long it is measured as others: slow requests need more time."""


def get(name: str, path: str, cookies: Sequence[str] = ("",), *, slices: int = 1) -> Workload:
    """Return a workload that reads *path* with each of *cookies* in turn."""
    return Workload(name, cycle([_request("GET", path, cookie) for cookie in cookies]), slices)


def post(name: str, path: str, body: str, cookies: Sequence[str], *, slices: int = 1) -> Workload:
    """Return a workload that writes once with each of *cookies*."""
    return Workload(
        name, iter([_request("POST", path, cookie, body) for cookie in cookies]), slices
    )


def cookie_of(secret: str) -> str:
    """Return the cookie of a session's *secret*."""
    return f"{SESSION_COOKIE}={secret}"


def _request(method: str, path: str, cookie: str, body: str = "") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", "sec-fetch-site: same-origin"]
    lines += [f"cookie: {cookie}"] if cookie else []
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", body]).encode()


@dataclass(frozen=True)
class Slice:
    """Results of one slice: requests per second, seconds and CPU microseconds per request."""

    rate: float
    seconds: list[float]
    cpu: dict[str, float]
    refused: int = 0
    """Responses 503 and 504, which the other figures leave out; their CPU time counts."""

    @property
    def total(self) -> float:
        """CPU microseconds of all processes for one request, without the sandbox."""
        return sum(spent for name, spent in self.cpu.items() if name not in OUTSIDE)


async def measure(
    side: Side,
    workload: Workload,
    *,
    seconds: float,
    at_once: int,
    rate: float = 0,
    settle: float = 0,
) -> Slice:
    """Send requests for a while over *at_once* connections.

    Args:
        side: Where to send them.
        workload: What to send.
        seconds: How long; again as long while every request is refused.
        at_once: Number of connections.
        rate: Requests per second of all connections. Default: as many as are answered.
        settle: Seconds afterwards whose CPU time counts, such as that of exporting spans.
    """
    async with contextlib.AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(_connected(side.port)) for _ in range(at_once)
        ]
        before, started = side.cpu(), time.monotonic()
        pause = at_once / rate if rate else 0.0
        answers: list[tuple[float, int]] = []
        done: list[float] = []
        while not done and time.monotonic() < started + _ATTEMPTS * seconds:
            starts = time.monotonic()
            sending = (
                _send(
                    connection,
                    workload,
                    due=starts + n / at_once * pause,
                    until=starts + seconds,
                    pause=pause,
                )
                for n, connection in enumerate(connections)
            )
            answers += [one for some in await asyncio.gather(*sending) for one in some]
            done = [took for took, status in answers if status == HTTPStatus.OK]
        lasted = time.monotonic() - started
        await asyncio.sleep(settle)
        watched, after = time.monotonic() - started, side.cpu()
    odd = {status for _, status in answers} - _EXPECTED
    if odd or not done:
        raise UnexpectedAnswerError(f"{side.name}, {workload.name}: {odd or 'only refusals'}")
    cpu = {
        # Without idle CPU use, which would weigh more on a slow machine.
        name: max(0.0, spent - before[name] - side.idle.get(name, 0) * watched) / len(done) * 1e6
        for name, spent in after.items()
    }
    return Slice(len(done) / lasted, done, cpu, len(answers) - len(done))


@contextlib.asynccontextmanager
async def _connected(port: int) -> AsyncIterator[Connection]:
    """Open a connection and use it once, so that accepting it is not measured."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_request("GET", "/healthz", ""))
    await _receive(reader)
    try:
        yield reader, writer
    finally:
        writer.close()


async def _send(
    connection: Connection, workload: Workload, *, due: float, until: float, pause: float
) -> list[tuple[float, int]]:
    """Send requests over one connection.

    Returns:
        How long each took, from when it was due, and its status.
    """
    reader, writer = connection
    taken = []
    while due < until:
        await asyncio.sleep(due - time.monotonic()) if pause else None
        writer.write(next(workload.requests))
        status = await _receive(reader)
        now = time.monotonic()
        taken.append((now - due, status))
        due = due + pause if pause else now
    return taken


async def _receive(reader: asyncio.StreamReader) -> int:
    """Read one response and return its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if (length := re.search(rb"content-length: (\d+)", head)) is not None:
        await reader.readexactly(int(length[1]))
    elif b"chunked" in head:
        while size := int((await reader.readline()).strip(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    return int(head.split(maxsplit=2)[1])


async def measure_idle(sides: Sequence[Side]) -> None:
    """Measure what each process uses without requests."""
    before = [side.cpu() for side in sides]
    await asyncio.sleep(IDLE_SECONDS)
    for side, known in zip(sides, before, strict=True):
        side.idle = {n: (spent - known[n]) / IDLE_SECONDS for n, spent in side.cpu().items()}


async def until_answered(side: Side, workload: Workload) -> None:
    """Wait until *side* answers; at most a minute."""
    until = time.monotonic() + 60
    while True:
        try:
            await measure(side, workload, seconds=0.01, at_once=1)
        except (OSError, asyncio.IncompleteReadError, UnexpectedAnswerError):
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)
        else:
            return
