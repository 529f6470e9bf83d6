"""Limits and sharing of concurrent probes."""

import asyncio
from datetime import timedelta

import pytest

from health_svc.probe_limits import SharedProber
from health_svc.probes import Probe, Prober
from mesh.chassis.errors import RateLimitedError, UnavailableError
from tests.health_svc.fakes import FakeNetwork

HOSTS = tuple(f"host{n}.example.org" for n in range(20))
ADDRESS = "93.184.216.34"


class SlowNetwork(FakeNetwork):
    """Resolves names only when the test opens the gate."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(HOSTS, (ADDRESS,)), alive=frozenset({ADDRESS}))
        self.gate = asyncio.Event()
        self.cancelled = 0

    async def resolve(self, host: str) -> tuple[str, ...]:
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await super().resolve(host)


def shared(network: FakeNetwork, total: int = 64) -> SharedProber:
    prober = Prober(network, frozenset(HOSTS))
    return SharedProber(prober, shared_for=timedelta(seconds=60), total=total)


async def start(prober: SharedProber, user: str, host: str) -> asyncio.Task[Probe]:
    task = asyncio.create_task(prober.probe(user, host, 443, timeout=timedelta(seconds=30)))
    await asyncio.sleep(0)
    return task


async def test_per_user() -> None:
    """Above 8 probes in flight one user is rate-limited; another user is not."""
    network = SlowNetwork()
    prober = shared(network)
    running = [await start(prober, "ada", host) for host in HOSTS[:8]]
    with pytest.raises(RateLimitedError) as ei:
        await prober.probe("ada", HOSTS[8], 443)
    assert timedelta(seconds=1) == ei.value.retry_after
    other = await start(prober, "grace", HOSTS[8])
    network.gate.set()
    assert all(probe.online for probe in await asyncio.gather(*running, other))
    assert (await prober.probe("ada", HOSTS[9], 443)).online


async def test_total() -> None:
    """All users together have a limit, which leaves room for status."""
    network = SlowNetwork()
    prober = shared(network, total=3)
    running = [await start(prober, f"user{n}", HOSTS[n]) for n in range(3)]
    with pytest.raises(UnavailableError):
        await prober.probe("late", HOSTS[4], 443)
    network.gate.set()
    await asyncio.gather(*running)


async def test_shared() -> None:
    """Concurrent probes of a host are shared, and the result serves later callers for a moment."""
    network = SlowNetwork()
    prober = shared(network)
    running = [await start(prober, f"user{n}", HOSTS[0].upper()) for n in range(5)]
    network.gate.set()
    found = await asyncio.gather(*running)
    later = await prober.probe("late", HOSTS[0], 443, timeout=timedelta(seconds=30))
    assert [HOSTS[0]] == network.lookups
    assert {HOSTS[0].upper()} == {probe.host for probe in found}
    assert (HOSTS[0], True) == (later.host, later.online)


async def test_last_caller_leaves() -> None:
    """A probe continues while one caller waits for it and is cancelled with the last one."""
    network = SlowNetwork()
    prober = shared(network)
    first, second = [await start(prober, user, HOSTS[0]) for user in ("ada", "grace")]
    first.cancel()
    await asyncio.wait({first})
    assert 0 == network.cancelled
    second.cancel()
    await asyncio.wait({second})
    await asyncio.sleep(0)
    assert 1 == network.cancelled
    network.gate.set()
    assert (await prober.probe("ada", HOSTS[0], 443)).online
