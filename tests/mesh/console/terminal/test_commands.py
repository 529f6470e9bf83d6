"""The terminal commands of the console."""

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from datetime import timedelta
from pathlib import Path

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from mesh.chassis.testing import free_port
from mesh.console.store.rows import Point
from mesh.console.store.schema import DatabaseError
from mesh.console.terminal import commands, offline_viewer, tables
from tests.mesh.console.conftest import TOKEN, Running, Start
from tests.mesh.console.queries.test_objectives import Process, scraped
from tests.mesh.console.telemetry import Batch, logs


async def run(running: Running, *arguments: str) -> Result:
    """Run a command against a console."""
    return await asyncio.to_thread(invoke, running.url, *arguments)


def invoke(url: str, *arguments: str) -> Result:
    group = click.Group(
        commands={c.name or "": c for c in commands.commands(lambda _: (url, TOKEN))}
    )
    return CliRunner().invoke(group, arguments)


class Screen:
    """`amarre top` in a pseudo-terminal with the given number of columns."""

    PROGRAM = (
        # A shell that started these tests in the background has Ctrl-C ignored, by us and ours.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from mesh.console.terminal import commands; from click import Group; "
        "Group(commands={c.name: c for c in commands.commands(lambda _: tuple(sys.argv[1:]))})"
        ".main(['top'])"
    )

    def __init__(self, url: str, columns: int) -> None:
        self._terminal, inner = pty.openpty()
        termios.tcsetwinsize(inner, (30, columns))
        # What the tests were started with says how wide another terminal is.
        inherited = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES"}}
        self._process = subprocess.Popen(
            (sys.executable, "-c", self.PROGRAM, url, TOKEN),
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            env={**inherited, "TERM": "xterm"},
        )
        os.close(inner)
        self.text = ""

    def read_until(self, wanted: str) -> None:
        """Read the output until it contains *wanted*, for at most 20 s."""
        ends = time.monotonic() + 20
        while wanted not in self.text:
            assert time.monotonic() < ends, self.text
            if select.select([self._terminal], [], [], 0.1)[0]:
                self.text += os.read(self._terminal, 65_536).decode(errors="replace")

    def end(self) -> int:
        """Press Ctrl-C; return the exit status."""
        self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(20)
        finally:
            self._process.kill()
            os.close(self._terminal)

    def lines(self) -> list[str]:
        """Return the output without cursor movements and colours."""
        frames = self.text.split("\x1b[H")
        return [
            line
            for frame in frames
            for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame).splitlines()
        ]


class TestCommands:
    async def test_link(self, running: Running) -> None:
        """
        The command prints a sign-in link to the console.
        """
        result = await run(running, "console")

        assert 0 == result.exit_code
        assert 200 == (await running.client.get(result.output.strip())).status_code

    async def test_traces(self, running: Running) -> None:
        """
        Traces are listed one per line, or as JSON; a single one is shown as a waterfall.
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

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("metrics --window soon", "--window must be a duration such as 15m"),
            ("traces --attr nothing", "--attr must be key=value"),
            ("traces --min-ms 1e12", "--min-ms must be a number of milliseconds"),
            ("logs --level loud", "--level must be one of trace, debug, info, warning"),
            ("logs --level loud --follow", "--level must be one of"),
            ("logs --trace abc", "--trace must be 32 hexadecimal characters"),
            (f"logs {'x' * 501}", "TEXT is longer than 500 characters"),
            ("policy diff --from yesterday", "--from must be an RFC 3339 time"),
        ],
    )
    async def test_errors_name_options(
        self, running: Running, arguments: str, message: str
    ) -> None:
        """
        The error for a value names the option, not the parameter of the API.
        """
        result = await run(running, *arguments.split())

        assert (2, True) == (result.exit_code, result.output.startswith(f"Error: {message}"))

    def test_failures_of_streams(self) -> None:
        """
        The table has no failure ratio for streams, which are counted only when they end or cannot
        be opened, nor for methods without calls.
        """
        item = {"service": "auth", "method": "x", "few": True, "rate": 0.1, "errorRatio": 1.0}
        item |= dict.fromkeys(("p50Ms", "p95Ms", "p99Ms"))
        items = [item | {"calls": 2, "staysOpen": stays_open} for stays_open in (True, False)]
        items.append(item | {"calls": 0, "staysOpen": False})

        failed = next(c for c in tables.methods(items, 120).columns if c.header == "failed")

        assert ["–", "100.00%", "–"] == [str(cell) for cell in failed.cells]

    @pytest.mark.parametrize("columns", [24, 48, 80, 120])
    async def test_top(self, start: Start, columns: int) -> None:
        """
        In a terminal of any width, `top` redraws as calls arrive, truncates no numbers, and ends
        with Ctrl-C.
        """
        process = Process()
        every = timedelta(milliseconds=50)
        async with (
            process.served() as target,
            start(console_scrape=(target,), console_scrape_every=every) as running,
        ):
            screen = await asyncio.to_thread(Screen, running.url, columns)
            try:
                await scraped(running)
                await asyncio.to_thread(screen.read_until, "service")
                process.call(times=7)
                await asyncio.to_thread(screen.read_until, "survey.")
            finally:
                status = await asyncio.to_thread(screen.end)

        assert 0 == status
        assert max(map(len, screen.lines())) <= columns
        assert [] == re.findall(r"[\d.]+…", screen.text)

    def test_alerts(self) -> None:
        """
        An alert is shown verbatim, including square brackets; silenced alerts are not shown.
        """
        told = {"name": "Odd", "message": "[/red] [bold"}
        servers = [{**told, "state": "suppressed"}, {**told, "state": "firing"}]

        lines = tables.alerts({"alerts": [told], "serverAlerts": servers})

        assert ["Odd [/red] [bold"] * 2 == [str(line) for line in lines]

    async def test_export(self, running: Running, tmp_path: Path) -> None:
        """
        An exported file is shown by a separate console, however old it is.
        """
        batch = Batch()
        trace = batch.call().hex()
        await running.take("traces", batch.request)
        old = int((time.time() - 86_400) * 1e6)
        running.context.writer.offer_points([Point("lab", "lab.load", "{}", old, 1.0, 0.0, "")])
        running.context.writer.flush()
        file = tmp_path / "run.sqlite"

        assert 0 == (await run(running, "export", str(file))).exit_code
        assert 2 == (await run(running, "export", str(file))).exit_code
        told: asyncio.Queue[str] = asyncio.Queue()
        showing = asyncio.create_task(
            offline_viewer.show(file, f"127.0.0.1:{free_port()}", told.put_nowait)
        )
        link = await asyncio.wait_for(told.get(), 10)
        async with httpx.AsyncClient() as browser:
            assert 200 == (await browser.get(link)).status_code
            url = link.partition("/open")[0]
            found = (await browser.get(f"{url}/api/traces")).json()["items"]
            names = (await browser.get(f"{url}/api/series")).json()["items"]
        showing.cancel()
        await asyncio.wait([showing])

        assert [trace] == [item["traceId"] for item in found]
        assert ["lab.load"] == [item["name"] for item in names]

    @pytest.mark.parametrize(
        ("content", "message"),
        [(b"nonsense" * 100, "is not a file of"), (b"", "has format 0; this version")],
        ids=["no database", "another version"],
    )
    async def test_other_file(self, tmp_path: Path, content: bytes, message: str) -> None:
        """
        A file that is not an export, or is one of another version, is refused, not shown as empty.
        """
        file = tmp_path / "other.sqlite"
        file.write_bytes(content)
        with pytest.raises(DatabaseError, match=message):
            await offline_viewer.show(file, f"127.0.0.1:{free_port()}", print)

    async def test_refused(self, running: Running) -> None:
        """
        An error of the console is one message and exit status 2.
        """
        result = await run(running, "traces", "--attr", "nothing")

        assert 2 == result.exit_code
        assert "attr must be key=value" in result.output

    def test_unavailable(self) -> None:
        """
        An unavailable console is one message and exit status 2.
        """
        result = invoke(f"http://127.0.0.1:{free_port()}", "logs")

        assert 2 == result.exit_code
        assert "does not respond" in result.output


class TestPolicyDiff:
    async def test_differs(self, running: Running) -> None:
        """
        Undeclared and unobserved calls exit with status 1 and name the policy option.
        """
        batch = Batch()
        parent = batch.span("stranger", "client", kind=3)
        batch.rpc("survey", trace=parent.trace_id, parent=parent.span_id)
        await running.take("traces", batch.request)

        found = await run(running, "policy", "diff", "--from", "-5m")

        assert 1 == found.exit_code
        (extra,) = [line for line in found.output.splitlines() if line.startswith("+")]
        assert "stranger -> survey  survey.ListRequests  1 call," in extra
        assert re.search(r'add callers: "stranger" in .*survey_service\.proto:\d+', extra)
        unused = [line for line in found.output.splitlines() if line.startswith("- gateway")]
        assert unused
        assert all("not observed" in line for line in unused)

    async def test_bad_time(self, running: Running) -> None:
        """
        An invalid time is one message, with the status of a usage error.
        """
        found = await run(running, "policy", "diff", "--from", "yesterday")

        assert 2 == found.exit_code
        assert "from must be an RFC 3339 time" in found.output


@pytest.mark.parametrize("trace_id", ["../../x", "?", "%"])
async def test_trace_id_that_is_not_one(start: Start, trace_id: str) -> None:
    """Any text can be given as the id of a trace; the console says that it does not have it."""
    async with start() as running:
        shown = await run(running, "traces", trace_id)

    assert 2 == shown.exit_code
    assert "does not respond" not in shown.output
