"""
Cost of VerifySession beyond a bare rpc, and whether sign-up's timing reveals known addresses.

    python -m benchmarks.services.verify_session [--calls 2000] [--sign-ups 200]

Everything runs in this process on SQLite: the CPU time of the handler alone, and the whole service
over mTLS compared with a method that its rules reject at once. The pairs are interleaved, so that
other work on the machine affects both alike.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from amarre.auth.v1 import auth_service_pb2 as pb
from amarre.auth.v1.auth_service_pb2_grpc import AuthServiceStub

from auth_svc.providers.embedded import EmbeddedDirectory
from auth_svc.service import register
from auth_svc.storage.database import Database
from mesh.chassis import call, telemetry
from mesh.chassis.identity import SpiffeId
from mesh.chassis.testing import connected, served
from mesh.local.pki.certificate_authority import CertificateAuthority, issue_all
from tests.auth_svc.harness import LIFE, Harness

GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")


def now() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)


def world_over(database: Database, staleness: timedelta) -> Harness:
    """Return Auth over *database* with the real clock and no limits."""
    directory = EmbeddedDirectory(database, LIFE, now)
    return Harness(
        database,
        now,  # type: ignore[arg-type] # the real clock
        directory,
        limited=False,
        staleness=staleness,
    )


async def cpu_us(once: Callable[[], Awaitable[object]], calls: int) -> float:
    """Return the CPU time of *once* in microseconds."""
    await once()
    started = time.process_time()
    for _ in range(calls):
        await once()
    return (time.process_time() - started) / calls * 1e6


async def refused(call_: Awaitable[object]) -> None:
    """Await a call that is rejected."""
    try:
        await call_
    except grpc.aio.AioRpcError:
        return
    raise AssertionError("the call succeeded")


async def handlers(database: Database, calls: int) -> None:
    """Print the cost of VerifySession's handler."""
    print("CPU of the handler, microseconds\n")
    print("| session | µs |")
    print("| --- | --- |")
    cases = (
        ("session and token cached", timedelta(seconds=2), calls),
        ("session from SQLite, token issued", timedelta(0), calls // 4),
    )
    for name, staleness, count in cases:
        harness = world_over(database, staleness)
        secret = await harness.use(await harness.link())
        request = pb.VerifySessionRequest(session_secret=secret, audience="survey")
        call.enter(call.Call("auth.VerifySession", GATEWAY, float("inf")))

        async def once(harness: Harness = harness, request: Any = request) -> object:
            return await harness.service.VerifySession(request, None)  # type: ignore[arg-type]

        print(f"| {name} | {await cpu_us(once, count):.0f} |")


async def whole(harness: Harness, svids: Path, calls: int) -> None:
    """Print the duration of the whole rpc and of one that is rejected at once."""
    secret = await harness.use(await harness.link())
    good = pb.VerifySessionRequest(session_secret=secret, audience="survey")
    bare = pb.VerifySessionRequest(session_secret=secret, audience="nowhere")
    times: dict[str, list[float]] = {"VerifySession": [], "rejected by its first rule": []}
    async with (
        served(register(harness.service), svids / "auth", audience="auth", key=harness.key) as port,
        connected("auth", port, svids / "gateway", AuthServiceStub) as auth,
    ):
        for _ in range(calls // 4):
            started = time.perf_counter()
            await auth.VerifySession(good)
            middle = time.perf_counter()
            await refused(auth.VerifySession(bare))
            times["VerifySession"].append(middle - started)
            times["rejected by its first rule"].append(time.perf_counter() - middle)
    print("\nThe whole call over mTLS, client and server in one process, milliseconds\n")
    print("| call | p50 | p95 |")
    print("| --- | --- | --- |")
    for name, seconds in times.items():
        p95 = statistics.quantiles(seconds, n=20)[-1]
        print(f"| {name} | {statistics.median(seconds) * 1e3:.2f} | {p95 * 1e3:.2f} |")


async def sign_ups(harness: Harness, count: int) -> None:
    """Print the time of sign-ups for known and unknown addresses."""
    known = [f"known{number}@example.org" for number in range(count // 2)]
    for address in known:
        await harness.link(address)
    times: dict[str, list[float]] = {"known": [], "unknown": []}
    for number, address in enumerate(known):
        for kind, email in (("known", address), ("unknown", f"new{number}@example.org")):
            started = time.perf_counter()
            await harness.sign_in.sign_up(email, client="192.0.2.1", language="")
            times[kind].append(time.perf_counter() - started)
    print(f"\nSign-up, {count} interleaved calls, REDCap responding at once, milliseconds\n")
    print("| address | p50 | p95 |")
    print("| --- | --- | --- |")
    medians = []
    for kind, seconds in times.items():
        medians.append(statistics.median(seconds) * 1e3)
        p95 = statistics.quantiles(seconds, n=20)[-1] * 1e3
        print(f"| {kind} | {medians[-1]:.2f} | {p95:.2f} |")
    print(f"\nMedians differ by {abs(medians[0] - medians[1]):.2f} ms.")


async def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--sign-ups", type=int, default=200)
    given = parser.parse_args()
    telemetry.configure_logs("auth", "benchmark", "ERROR")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        issue_all(CertificateAuthority.create(), folder / "svids")
        url = f"sqlite+aiosqlite:///{folder / 'auth.sqlite'}"
        async with aclosing(Database(url)) as database:
            await database.migrate()
            await handlers(database, given.calls)
            harness = world_over(database, timedelta(seconds=2))
            await whole(harness, folder / "svids", given.calls)
            await sign_ups(harness, given.sign_ups)


if __name__ == "__main__":
    asyncio.run(main())
