"""A client that sends requests and measures what they cost: CPU time, rates and latencies."""

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import cycle
from pathlib import Path

import psutil

from benchmarks.processes import cpu_seconds
from mesh.contract.openapi import SESSION_COOKIE

OUTSIDE = ("redcap", "outbox")
"""The sandbox's processes, which stand for systems outside of the mesh."""
IDLE_SECONDS = 5.0
_ATTEMPTS = 5
_EXPECTED = (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)


class UnexpectedAnswerError(Exception):
    """A response is neither 200 nor a refusal under load; the message has its head."""


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
    side: Side, workload: Workload, *, seconds: float, at_once: int, rate: float = 0
) -> Slice:
    """Send requests for a while over *at_once* connections.

    Args:
        side: Where to send them.
        workload: What to send.
        seconds: How long; again as long while every request is refused.
        at_once: Number of connections.
        rate: Requests per second of all connections. Default: as many as are answered.
    """
    before, started = side.cpu(), time.monotonic()
    pause = at_once / rate if rate else 0.0
    answers: list[tuple[float, bool]] = []
    for _ in range(_ATTEMPTS):
        starts = time.monotonic()
        connections = (
            _send(side, workload, starts + n / at_once * pause, starts + seconds, pause)
            for n in range(at_once)
        )
        answers += [one for some in await asyncio.gather(*connections) for one in some]
        done = [took for took, served in answers if served]
        if done:
            break
    else:
        raise UnexpectedAnswerError(f"{side.name}, {workload.name}: all requests are refused")
    lasted = time.monotonic() - started
    cpu = {
        # Without idle CPU use, which would weigh more on a slow machine.
        name: max(0.0, spent - before[name] - side.idle.get(name, 0) * lasted) / len(done) * 1e6
        for name, spent in side.cpu().items()
    }
    return Slice(len(done) / lasted, done, cpu, len(answers) - len(done))


async def _send(
    side: Side, workload: Workload, starts: float, until: float, pause: float
) -> list[tuple[float, bool]]:
    """Send requests over one connection.

    Returns:
        How long each took, from when it was due, and whether it was served.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    taken = []
    due = starts
    while due < until:
        await asyncio.sleep(due - time.monotonic()) if pause else None
        writer.write(next(workload.requests))
        served = await _receive(reader, f"{side.name}, {workload.name}")
        now = time.monotonic()
        taken.append((now - due, served))
        due = due + pause if pause else now
    writer.close()
    return taken


async def _receive(reader: asyncio.StreamReader, what: str) -> bool:
    """Read one response; return whether it is 200."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(maxsplit=2)[1])
    if status not in _EXPECTED:
        raise UnexpectedAnswerError(f"{what}: {head.decode(errors='replace')}")
    if (length := re.search(rb"content-length: (\d+)", head)) is not None:
        await reader.readexactly(int(length[1]))
        return status == HTTPStatus.OK
    while size := int((await reader.readline()).strip(), 16):
        await reader.readexactly(size + 2)
    await reader.readline()
    return status == HTTPStatus.OK


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
