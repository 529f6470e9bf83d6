"""The state of a real Envoy, from its admin interface."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from string import Template
from typing import Any

import httpx
import pytest

from mesh.chassis.testing import free_port
from mesh.console.intake import envoy_admin
from mesh.console.settings import Target
from mesh.control import Progress, serve_actions
from mesh.local.control.audit_log import AuditLog
from mesh.local.processes import envoy as program
from tests.mesh.console.conftest import Start

pytestmark = pytest.mark.envoy

CONFIGURATION = Path(__file__).with_name("envoy.yaml")


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """Run an Envoy whose only host is down; yields the URLs of its admin interface and listener."""
    admin, port, dead = free_port(), free_port(), free_port()
    file = folder / "envoy.yaml"
    template = Template(CONFIGURATION.read_text())
    file.write_text(template.substitute(admin=admin, port=port, dead=dead))
    process = await asyncio.create_subprocess_exec(
        *(str(program.binary()), "-c", str(file), "--disable-hot-restart", "--concurrency", "1"),
        *("-l", "error"),
    )
    try:
        yield f"http://127.0.0.1:{admin}", f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def ready(client: httpx.AsyncClient, admin: str) -> None:
    """Wait until Envoy is serving."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(f"{admin}/ready")).is_success:
                    return
            await asyncio.sleep(0.05)


class TestEnvoy:
    async def test_everything(self, tmp_path: Path) -> None:
        """
        Routes with timeouts, weights, faults and ejected hosts are read from a real Envoy.
        """
        async with (
            running(tmp_path) as (admin, url),
            httpx.AsyncClient(trust_env=False) as client,
            asyncio.timeout(30),
        ):
            await ready(client, admin)
            proxy = await envoy_admin.read(client, admin)
            while not any(host["ejected"] for host in proxy.hosts):
                await client.get(f"{url}/x")
                proxy = await envoy_admin.read(client, admin, proxy)

        path = "/amarre.survey.v1.SurveyService/ListRequests"
        assert "LIVE" == proxy.state
        assert proxy.version.startswith("1.")
        assert {
            "path": path,
            "cluster": "weighted",
            "timeout": "5s",
            "retries": 2,
            "retryOn": "unavailable",
        } == proxy.routes[0]
        assert [{"path": path, "clusters": {"survey": 90, "survey_canary": 10}}] == proxy.weights
        assert [("0.300s", 0.5, "")] == [
            (fault["delay"], fault["delayShare"], fault["abort"]) for fault in proxy.faults
        ]
        assert ["survey"] == [host["cluster"] for host in proxy.hosts if host["ejected"]]

    async def test_in_the_console(self, start: Start, tmp_path: Path) -> None:
        """
        The console shows the state of the proxy, and an alert for the ejected host.
        """

        async def verdicts(_: dict[str, Any], tell: Progress) -> list[dict[str, str]]:
            return [{"service": "survey", "verdict": "healthy"}]

        socket = tmp_path / "control.sock"
        journal = AuditLog(tmp_path / "orders.jsonl")
        async with running(tmp_path) as (admin, url):
            target = Target(process="gateway-envoy", url=admin)
            async with (
                serve_actions(socket, {"canary status": verdicts}, journal.record),
                start(
                    console_scrape=(target,),
                    console_scrape_every=timedelta(seconds=0.1),
                    console_control=socket,
                ) as console,
                asyncio.timeout(30),
            ):
                await ready(console.client, admin)
                alerts = list[str]()
                while "HostEjected" not in alerts:
                    await console.client.get(f"{url}/x")
                    found = await console.get("overview")
                    alerts = [alert["name"] for alert in found["alerts"]]
                # Once more: what was read of the proxy may have changed between the two halves.
                found = await console.get("overview")
                mesh = await console.get("mesh")

        assert ["gateway-envoy"] == [proxy["process"] for proxy in mesh["proxies"]]
        assert 1 == len(mesh["ejections"]) == len(mesh["faults"]) == len(mesh["weights"])
        survey = next(one for one in found["items"] if one["service"] == "survey")
        assert (1, 10, "healthy") == (
            survey["ejectedHosts"],
            survey["canaryWeight"],
            survey["canaryVerdict"],
        )

    async def test_long_answers_are_not_asked_for_again(self) -> None:
        """
        Hosts, certificates and routes are read again if a statistic changes, or after a restart.
        """
        stats = {
            "cluster.auth.membership_healthy": 1,
            "cluster.auth.upstream_rq_total": 1,
            "cluster.auth.upstream_rq_active": 0,
            "server.state": 0,
            "server.uptime": 10,
        }
        asked = list[str]()
        cluster = {
            "name": "auth",
            "circuit_breakers": {"thresholds": [{"max_requests": 4}]},
            "host_statuses": [{"stats": [{"name": "rq_active", "value": 0}]}],
        }

        async def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request.url.path)
            answers: dict[str, Any] = {
                "/server_info": {"version": "a/1.40.0/b"},
                "/stats": {"stats": [{"name": n, "value": v} for n, v in stats.items()]},
                "/clusters": {"cluster_statuses": [cluster]},
            }
            return httpx.Response(200, json=answers.get(request.url.path, {}))

        proxy: envoy_admin.Proxy | None = None
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:

            async def read_again() -> tuple[int, float]:
                nonlocal proxy
                asked.clear()
                proxy = await envoy_admin.read(client, "http://127.0.0.1:1", proxy)
                return len(asked), proxy.counters["cluster.auth.upstream_rq_total"]

            proxy = await envoy_admin.read(client, "http://127.0.0.1:1")
            assert 6 == len(asked)
            stats |= {"cluster.auth.upstream_rq_total": 2, "cluster.auth.upstream_rq_active": 3}
            assert (1, 2) == await read_again()
            assert [("auth", 3, 4)] == proxy.loads
            stats["cluster.auth.membership_healthy"] = 0
            assert (6, 2) == await read_again()
            stats["server.uptime"] = 1
            assert (6, 2) == await read_again()
            assert (1, 2) == await read_again()

    async def test_no_envoy(self) -> None:
        """
        Another server on the port is a scrape error, not a crash.
        """

        async def answer(request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, json=["no", "envoy"])

        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            with pytest.raises(TypeError):
                await envoy_admin.read(client, "http://127.0.0.1:1")
