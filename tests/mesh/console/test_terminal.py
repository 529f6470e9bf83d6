"""The console from a terminal."""

import asyncio
import json
from pathlib import Path

import click
import httpx
from click.testing import CliRunner, Result

from mesh.chassis.testing import free_port
from mesh.console import imported, terminal
from tests.mesh.console.conftest import TOKEN, Running
from tests.mesh.console.telemetry import Batch, logs


async def run(running: Running, *arguments: str) -> Result:
    """Run a command against a console."""
    return await asyncio.to_thread(invoke, running.url, *arguments)


def invoke(url: str, *arguments: str) -> Result:
    group = click.Group(
        commands={c.name or "": c for c in terminal.commands(lambda _: (url, TOKEN))}
    )
    return CliRunner().invoke(group, arguments)


class TestCommands:
    async def test_link(self, running: Running) -> None:
        """
        A link is printed that opens the console.
        """
        result = await run(running, "console")

        assert 0 == result.exit_code
        assert 200 == (await running.client.get(result.output.strip())).status_code

    async def test_traces(self, running: Running) -> None:
        """
        Traces are listed a line each, or as JSON; one is shown as a waterfall.
        """
        batch = Batch()
        trace = batch.call().hex()
        await running.take("traces", batch.request)

        listed = await run(running, "traces", "--rpc", "survey.ListRequests")
        lines = await run(running, "traces", "--json")
        whole = await run(running, "traces", trace)

        assert trace in listed.output
        assert trace == json.loads(lines.output)["traceId"]
        assert 5 == len(whole.output.splitlines())
        assert "survey POST redcap" in whole.output

    async def test_logs(self, running: Running) -> None:
        """
        Logs are printed oldest first.
        """
        await running.take("logs", logs("auth", "first"))
        await running.take("logs", logs("auth", "second", level=17, rpc="auth.LogIn"))

        result = await run(running, "logs")

        assert ["first", "second"] == [line.split()[3] for line in result.output.splitlines()]
        assert "rpc=auth.LogIn" in result.output

    async def test_tables(self, running: Running) -> None:
        """
        Methods and services are shown as tables.
        """
        assert "survey.ListRequests" in (await run(running, "metrics")).output
        assert "gateway" in (await run(running, "top", "--once")).output

    async def test_export(self, running: Running, tmp_path: Path) -> None:
        """
        What is exported to a file is shown by a console of its own, however old it is.
        """
        batch = Batch()
        trace = batch.call().hex()
        await running.take("traces", batch.request)
        file = tmp_path / "run.sqlite"

        assert 0 == (await run(running, "export", str(file))).exit_code
        assert 2 == (await run(running, "export", str(file))).exit_code
        told: asyncio.Queue[str] = asyncio.Queue()
        showing = asyncio.create_task(
            imported.show(file, f"127.0.0.1:{free_port()}", told.put_nowait)
        )
        link = await asyncio.wait_for(told.get(), 10)
        async with httpx.AsyncClient() as browser:
            assert 200 == (await browser.get(link)).status_code
            url = link.partition("/open")[0]
            found = (await browser.get(f"{url}/api/traces")).json()["items"]
        showing.cancel()
        await asyncio.wait([showing])

        assert [trace] == [item["traceId"] for item in found]

    async def test_refused(self, running: Running) -> None:
        """
        What the console refuses is one message and exit status 2.
        """
        result = await run(running, "traces", "--attr", "nothing")

        assert 2 == result.exit_code
        assert "attr must be key=value" in result.output

    def test_away(self) -> None:
        """
        A console that is away is one message and exit status 2.
        """
        result = invoke(f"http://127.0.0.1:{free_port()}", "logs")

        assert 2 == result.exit_code
        assert "does not answer" in result.output
