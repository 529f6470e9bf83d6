"""The health check of a container."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health

from mesh.chassis import probe

NAME = "amarre.survey.v1.SurveyService"


@contextlib.asynccontextmanager
async def grpc_server(address: str, *, serving: bool) -> AsyncIterator[None]:
    server = grpc.aio.server()
    servicer = grpc_health.HealthServicer()
    status = health_pb2.HealthCheckResponse
    await servicer.set(NAME, status.SERVING if serving else status.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(address)
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


async def exit_status(*arguments: str) -> int:
    return await asyncio.to_thread(probe.main, list(arguments))


class TestGrpc:
    @pytest.mark.parametrize(
        ("serving", "expected"),
        [pytest.param(True, 0, id="ready"), pytest.param(False, 1, id="not")],
    )
    async def test_health_over_a_unix_socket(
        self, tmp_path: Path, serving: bool, expected: int
    ) -> None:
        """The exit status is the health that the server reports over its Unix socket."""
        address = f"unix:{tmp_path / 'x.sock'}"
        async with grpc_server(address, serving=serving):
            assert expected == await exit_status("grpc", address, NAME)

    async def test_alive(self, tmp_path: Path) -> None:
        """A server that is not ready is nevertheless alive."""
        address = f"unix:{tmp_path / 'x.sock'}"
        async with grpc_server(address, serving=False):
            assert 0 == await exit_status("grpc", address, NAME, "alive")

    async def test_nobody_there(self, tmp_path: Path) -> None:
        """An unavailable server is neither ready nor alive."""
        assert 1 == await exit_status("grpc", f"unix:{tmp_path / 'x.sock'}", NAME, "alive")
        assert 1 == await exit_status("grpc", f"unix:{tmp_path / 'x.sock'}", NAME)


class TestHttp:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            pytest.param(b"HTTP/1.1 200 OK", 0, id="200"),
            pytest.param(b"HTTP/1.1 503 Service Unavailable", 1, id="503"),
        ],
    )
    async def test_status_over_a_unix_socket(
        self, tmp_path: Path, line: bytes, expected: int
    ) -> None:
        """Only a successful GET counts as ready."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(line + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        path = tmp_path / "x.sock"
        async with await asyncio.start_unix_server(answer, path):
            assert expected == await exit_status("http", f"unix:{path}", "/healthz")

    async def test_nobody_there(self, tmp_path: Path) -> None:
        """An unavailable server is not ready."""
        assert 1 == await exit_status("http", f"unix:{tmp_path / 'x.sock'}", "/healthz")

    @pytest.mark.parametrize(
        ("tls", "expected"), [pytest.param(True, 0, id="TLS"), pytest.param(False, 1, id="none")]
    )
    async def test_https(self, svids: Path, tls: bool, expected: int) -> None:
        """Over HTTPS any certificate is accepted, and a server without TLS is not alive."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                await writer.drain()
            writer.close()

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(svids / "edge/tls.crt", svids / "edge/tls.key")
        async with await asyncio.start_server(
            answer, "127.0.0.1", 0, ssl=context if tls else None
        ) as server:
            port = server.sockets[0].getsockname()[1]
            assert expected == await exit_status("https", f"127.0.0.1:{port}", "/", "alive")


def test_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong arguments have a different status than a process that is not ready."""
    assert 2 == probe.main(["tcp", "127.0.0.1:1", "/"])
    assert 2 == probe.main(["grpc", "127.0.0.1:1", "x", "y"])
    assert "grpc ADDRESS SERVICE" in capsys.readouterr().err
