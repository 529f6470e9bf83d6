"""Fixtures: a running writer, and a whole console on free ports."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from mesh.chassis.testing import free_port
from mesh.console.app import ListenError, console
from mesh.console.clock import steady
from mesh.console.context import Context
from mesh.console.intake import otlp_reader
from mesh.console.intake.otlp_decoder import Decoder
from mesh.console.settings import MEBIBYTE, ConsoleSettings
from mesh.console.store import schema
from mesh.console.store.intake_counters import IntakeCounters
from mesh.console.store.rows import Row
from mesh.console.store.writer import Writer

TOKEN = "a-token-for-tests-alone"
ADDRESSES = ("console_listen", "console_otlp_grpc", "console_otlp_http")


@dataclass
class Kept:
    """A running writer, with a way to read what it wrote."""

    writer: Writer
    intake: IntakeCounters
    path: Path
    decoder: Decoder

    def take(self, signal: str, *requests: Any) -> None:
        """Decode and write requests; return when they are written or lost."""
        for request in requests:
            rows = self.rows_of(signal, request)
            assert not rows or self.writer.offer(signal, rows, request.ByteSize())
        self.writer.flush()

    def rows_of(self, signal: str, request: Any) -> list[Row]:
        """Return the rows decoded from a request."""
        message = otlp_reader.read(
            signal, request.SerializeToString(), otlp_reader.PROTOBUF
        ).message
        return self.decoder.decode(signal, message).rows

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """Return the result of a query."""
        with contextlib.closing(schema.open_reader(self.path)) as db:
            return [tuple(row) for row in db.execute(sql, values)]

    def dropped(self) -> dict[tuple[str, str], int]:
        """Return the dropped items: count by (reason, service)."""
        return {(one.reason, one.service): one.count for one in self.intake.dropped()}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Kept]]:
    """Starts a writer with custom limits."""
    with contextlib.ExitStack() as stack:

        def start(**limits: Any) -> Kept:
            now = steady()
            intake = IntakeCounters(now)
            path = tmp_path / "console.sqlite"
            usual: dict[str, Any] = {
                "retention": timedelta(days=7),
                "points_retention": timedelta(hours=6),
                "service_bytes": 100 * MEBIBYTE,
            }
            writer = Writer(path, now=now, intake=intake, **(usual | limits))
            decoder = Decoder(now, intake, (usual | limits)["retention"])
            return Kept(stack.enter_context(writer), intake, path, decoder)

        yield start


@pytest.fixture
def kept(make: Callable[..., Kept]) -> Kept:
    """A running writer with the default limits."""
    return make()


@dataclass
class Running:
    """A whole console: addresses, components and an authenticated client."""

    settings: ConsoleSettings
    context: Context
    client: httpx.AsyncClient

    @property
    def url(self) -> str:
        """URL of the pages and the API."""
        return f"http://{self.settings.console_listen}"

    @property
    def otlp(self) -> str:
        """URL of OTLP over HTTP."""
        return f"http://{self.settings.console_otlp_http}"

    async def take(self, signal: str, request: Any) -> None:
        """Send a request over HTTP and wait until it is written."""
        answer = await self.client.post(
            f"{self.otlp}/v1/{signal}",
            content=request.SerializeToString(),
            headers={"content-type": "application/x-protobuf"},
        )
        assert 200 == answer.status_code
        self.context.writer.flush()

    async def get(self, path: str, **parameters: Any) -> Any:
        """Return the JSON of an API endpoint."""
        answer = await self.client.get(f"{self.url}/api/{path}", params=parameters)
        assert 200 == answer.status_code, answer.text
        return answer.json()


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts whole consoles in one folder."""
    (tmp_path / "token").touch(0o600)
    (tmp_path / "token").write_text(TOKEN)

    @contextlib.asynccontextmanager
    async def run(**settings: Any) -> AsyncIterator[Running]:
        async with contextlib.AsyncExitStack() as stack:
            whole, context = await _on_free_ports(stack, tmp_path, settings)
            client = httpx.AsyncClient(
                headers={"authorization": f"Bearer {TOKEN}"}, trust_env=False, timeout=10
            )
            yield Running(whole, context, await stack.enter_async_context(client))

    return run


async def _on_free_ports(
    stack: contextlib.AsyncExitStack, folder: Path, settings: dict[str, Any]
) -> tuple[ConsoleSettings, Context]:
    """Start a console; retry if another program took one of its ports."""
    files = {
        "console_database": folder / "console.sqlite",
        "console_token_file": folder / "token",
    }
    for attempt in range(5):
        addresses = {name: f"127.0.0.1:{free_port()}" for name in ADDRESSES}
        whole = ConsoleSettings.model_validate(addresses | files | settings)
        try:
            return whole, await stack.enter_async_context(console(whole))
        except ListenError:
            if attempt == 4 or settings.keys() & addresses.keys():
                raise
    raise AssertionError("the last attempt returns or raises")


@pytest.fixture
async def running(start: Start) -> AsyncIterator[Running]:
    """A whole console."""
    async with start() as found:
        yield found
