"""The REDCap client with servers that break connections or respond slowly."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pydantic import SecretStr

from mesh.chassis import call
from mesh.chassis.errors import DeadlineExceededError, UnavailableError
from mesh.chassis.identity import SpiffeId
from mesh.chassis.testing import free_port
from survey_svc.redcap.client import RedcapApi
from survey_svc.redcap.project import RedcapProject
from survey_svc.study.profile import Profile

TOKEN = "0123456789ABCDEF0123456789ABCDEF"


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def _broken(serve: Serve, profile: Profile) -> AsyncIterator[RedcapProject]:
    """The adapter on a server with the behaviour *serve*."""

    handling = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()

    port = free_port()
    server = await asyncio.start_server(handle, "127.0.0.1", port)
    api = RedcapApi(f"http://127.0.0.1:{port}/api/", SecretStr(TOKEN))
    async with server:
        yield RedcapProject(api, profile)
        await api.close()
        await asyncio.gather(*(task for task in handling if task))


async def _reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n%PDF-1.7")
    await writer.drain()


async def _silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def _trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n[")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


class TestBrokenServers:
    @pytest.mark.parametrize("serve", [_reset, _cut], ids=["reset", "cut"])
    async def test_breaks_off(self, profile: Profile, serve: Serve) -> None:
        """A REDCap that drops connections is UNAVAILABLE."""
        async with _broken(serve, profile) as project:
            with pytest.raises(UnavailableError):
                await project.rows(["ada"])

    async def test_pdf_breaks_off(self, profile: Profile) -> None:
        """A truncated PDF is an error, not a short file."""
        async with _broken(_cut, profile) as project:
            with pytest.raises(UnavailableError):
                [piece async for piece in project.pdf("r1", "form")]

    @pytest.mark.parametrize("serve", [_silent, _trickle], ids=["silent", "trickle"])
    async def test_never_ends(self, profile: Profile, serve: Serve) -> None:
        """A REDCap that never finishes is abandoned before the call's own deadline."""
        loop = asyncio.get_running_loop()
        caller = SpiffeId("amarre.local", "amarre", "gateway")
        async with _broken(serve, profile) as project:
            call.enter(call.Call("survey.ListRequests", caller, loop.time() + 1.0))
            started = loop.time()
            with pytest.raises(DeadlineExceededError):
                await project.rows(["ada"])

        assert 1.0 > loop.time() - started

    async def test_down(self, profile: Profile) -> None:
        """A REDCap that is down is UNAVAILABLE, and not alive."""
        api = RedcapApi(f"http://127.0.0.1:{free_port()}/api/", SecretStr(TOKEN))
        project = RedcapProject(api, profile)

        with pytest.raises(UnavailableError):
            await project.rows(["ada"])
        assert not await project.is_alive()
        await api.close()
