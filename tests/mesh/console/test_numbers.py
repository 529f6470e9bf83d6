"""Consistent numbers: console, Prometheus and terminal agree."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from mesh.chassis.telemetry import names
from mesh.chassis.testing import free_port
from mesh.console.settings import Target
from mesh.contract import policy
from mesh.render.rules import scraping
from mesh.render.rules.pace import Pace
from mesh.render.rules.recording import ends
from tests.mesh.console.conftest import Start
from tests.mesh.console.queries.test_objectives import EVERY, Process, method, scraped
from tests.mesh.console.terminal.test_commands import run

PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(
    PROMETHEUS is None, reason="prometheus is missing: apt-get install prometheus"
)
BY_METHOD = "sum by (service, method)"
FAULTS = "|".join(sorted(names.FAULT_CODES))
ENDS = ends(policy.load())
CALLS, BUCKETS = f"{names.RPC_CLIENT_DURATION}_count", f"{names.RPC_CLIENT_DURATION}_bucket"


class Prometheus:
    """A real Prometheus with the rendered configuration."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def ask(self, query: str) -> float:
        """Return the single value of *query*; -1 if there is none."""
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"{self._url}/api/v1/query", params={"query": query})
        found = answer.json()["data"]["result"]
        return float(found[0]["value"][1]) if found else -1.0

    async def answer(self, query: str) -> float:
        """Return the value once there is one: a slow scrape leaves a gap."""
        async with asyncio.timeout(60):
            while (found := await self.ask(query)) < 0:
                await asyncio.sleep(0.1)
        return found


@contextlib.asynccontextmanager
async def prometheus(folder: Path, target: Target) -> AsyncIterator[Prometheus]:
    """Run a Prometheus that scrapes *target* every second."""
    at, address = f"127.0.0.1:{free_port()}", target.url.removeprefix("http://").partition("/")[0]
    scrape = scraping.Target("amarre", target.process, target.process, address)
    file = folder / "prometheus.yaml"
    file.write_text(scraping.configuration([scrape], pace=Pace(15)))
    process = await asyncio.create_subprocess_exec(
        *(str(PROMETHEUS), f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"),
        *(f"--web.listen-address={at}", "--log.level=error"),
    )
    try:
        yield Prometheus(f"http://{at}")
    finally:
        process.terminate()
        await process.wait()


async def until(holds: Callable[[], Any]) -> None:
    """Wait until *holds* is true."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if await holds():
                    return
            await asyncio.sleep(0.1)


async def test_known_traffic(start: Start, tmp_path: Path) -> None:
    """
    Calls, errors and the 95th percentile of a method and of its service agree in all three, and the
    terminal shows the value of the API. Long-lived streams count for no service.
    """
    process = Process()
    async with (
        process.served() as target,
        prometheus(tmp_path, target) as other,
        start(console_scrape=(target,), console_scrape_every=EVERY) as running,
    ):
        await scraped(running)
        for seconds in (0.004, 0.02, 0.02, 0.2, 0.7):
            process.call(seconds=seconds, times=17)
        process.call("UNAVAILABLE", 2.0, times=3)
        process.call("NOT_FOUND", times=5)
        for code in ("UNAVAILABLE", "CANCELLED"):
            process.seconds.labels("survey", "WatchRequests", code).observe(30.0)
        calls = 5 * 17 + 3 + 5

        console = await method(running, calls)
        await until(lambda: _is(other, f"sum by (service) ({CALLS}{{{ENDS}}})", calls))
        errors = await other.answer(f'{BY_METHOD} ({CALLS}{{{ENDS},code=~"{FAULTS}"}})')
        p95 = await other.answer(
            f"histogram_quantile(0.95, sum by (service, le) ({BUCKETS}{{{ENDS}}}))"
        )
        services = (await running.get("overview"))["items"]
        top = (await run(running, "top", "--once")).output
        lines = (await run(running, "metrics", "--json", "--window", "5m")).output.splitlines()
        table = (await run(running, "metrics", "--window", "5m")).output

    terminal = next(x for x in map(json.loads, lines) if x["rpc"] == "survey.ListRequests")
    row = next(line for line in table.splitlines() if "survey.ListRequests" in line)
    service = next(x for x in services if x["service"] == "survey")
    shown = next(line for line in top.splitlines() if line.startswith("survey "))
    for one in (console, terminal, service):
        assert (calls, 3, False) == (one["calls"], one["errors"], one["few"])
        assert pytest.approx(p95 * 1000, abs=0.001) == one["p95Ms"]
    assert 3 == errors
    for line in (row, shown):
        assert {f"{calls}", f"{3 / calls:.2%}", f"{console['p95Ms']:.1f}"} <= set(line.split())


async def test_few_calls(start: Start) -> None:
    """
    Figures of few calls are marked; without calls there are none.
    """
    process = Process()
    async with (
        process.served() as target,
        start(console_scrape=(target,), console_scrape_every=EVERY) as running,
    ):
        await scraped(running)
        process.call(times=3)
        console = await method(running, 3)
        table = (await run(running, "metrics")).output

    assert console["few"]
    row = next(line for line in table.splitlines() if "survey.ListRequests" in line)
    assert "3 (few)" in row
    idle = next(line for line in table.splitlines() if "survey.GetLink" in line)
    assert "few" not in idle
    assert "–" in idle


async def _is(other: Prometheus, query: str, wanted: float) -> bool:
    return wanted == await other.ask(query)
