"""Which failures eject a replica, tested with a real Envoy and the rendered outlier detection."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml

from mesh.chassis.testing import free_port
from mesh.contract import policy
from mesh.local.processes import envoy as program
from mesh.render.envoy import Traffic, files, standard_placement

pytestmark = pytest.mark.envoy

MESH = policy.load()
METHOD = "/amarre.test.v1.Test/Call"
CALLS = 30
PATIENCE_SECONDS = 60


def rendered_cluster(service: str) -> dict[str, Any]:
    """Return the gateway's rendered cluster *service*."""
    proxy = next(proxy for proxy in standard_placement() if proxy.workload == "gateway")
    rendered = files(MESH, proxy, {s.name: ("127.0.0.1:1",) for s in MESH.services}, Traffic())
    return next(
        cluster
        for text in rendered.values()
        for cluster in _clusters(yaml.safe_load(text))
        if cluster["name"] == service
    )


def _clusters(document: Any) -> list[dict[str, Any]]:
    """Return every cluster in a rendered document, at any depth."""
    if isinstance(document, dict):
        own = [document] if {"name", "outlier_detection"} <= set(document) else []
        return own + [found for value in document.values() for found in _clusters(value)]
    if isinstance(document, list):
        return [found for value in document for found in _clusters(value)]
    return []


def configuration(port: int, admin: int, upstream: int) -> dict[str, Any]:
    """Return a small Envoy: one listener, one cluster with the rendered outlier detection."""
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network."
        "http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "HTTP2",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/"}, "route": {"cluster": "callee", "timeout": "2s"}}
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    cluster = rendered_cluster("survey")
    return {
        "admin": {"address": _address(admin)},
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": _address(port),
                    "filter_chains": [
                        {"filters": [{"name": "http", "typed_config": manager}]},
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "callee",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": cluster["typed_extension_protocol_options"],
                    "outlier_detection": cluster["outlier_detection"]
                    | {"max_ejection_percent": 100},
                    "load_assignment": {
                        "cluster_name": "callee",
                        "endpoints": [
                            {"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}
                        ],
                    },
                }
            ],
        },
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@contextlib.asynccontextmanager
async def envoy(folder: Path, upstream: int) -> AsyncIterator[tuple[int, str]]:
    """Run Envoy in front of *upstream*; yield its port and its admin URL."""
    port, admin = free_port(), free_port()
    file = folder / "envoy.yaml"
    file.write_text(yaml.safe_dump(configuration(port, admin, upstream)))
    process = await asyncio.create_subprocess_exec(
        str(program.binary()), "-c", str(file), "--concurrency", "1", "--disable-hot-restart",
        "-l", "error", start_new_session=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{admin}"
    try:
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            httpx.AsyncClient(trust_env=False) as client,
        ):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"{url}/ready")).is_success:
                        break
                await asyncio.sleep(0.05)
        yield port, url
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def ejections(url: str) -> int:
    """Return the number of ejections by Envoy so far."""
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"{url}/stats?filter=ejections_enforced_total")).text
    return int(text.rsplit(":", 1)[1])


async def calls(port: int) -> list[grpc.StatusCode]:
    """Make concurrent calls through Envoy; return their statuses."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        return await asyncio.gather(*(_call(channel) for _ in range(CALLS)))


async def _call(channel: grpc.aio.Channel) -> grpc.StatusCode:
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
    try:
        await method(b"", timeout=20)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def until_ejected(port: int, admin: str) -> None:
    """Call until Envoy ejects the replica."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await ejections(admin):
            await calls(port)


@contextlib.asynccontextmanager
async def replica(
    answer: Callable[[bytes, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]],
) -> AsyncIterator[int]:
    """Serve `METHOD` with *answer*; yield the port."""
    server = grpc.aio.server()
    service, method = METHOD[1:].split("/")
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@pytest.mark.parametrize("headers", [False, True], ids=["trailers only", "after headers"])
async def test_honest_unavailable(tmp_path: Path, headers: bool) -> None:
    """A replica that returns UNAVAILABLE because of a backend is never ejected (F3)."""

    async def unavailable(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if headers:
            await context.send_initial_metadata(())
        await context.abort(grpc.StatusCode.UNAVAILABLE, "REDCap cannot be reached.")
        return b""

    async with replica(unavailable) as upstream, envoy(tmp_path, upstream) as (port, admin):
        codes = [code for _ in range(3) for code in await calls(port)]

        assert {grpc.StatusCode.UNAVAILABLE} == set(codes)
        assert 0 == await ejections(admin)


async def test_no_answer(tmp_path: Path) -> None:
    """A replica that accepts calls but never responds is ejected."""

    async def hang(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await asyncio.Event().wait()
        return b""

    async with replica(hang) as upstream, envoy(tmp_path, upstream) as (port, admin):
        await until_ejected(port, admin)


async def test_reset(tmp_path: Path) -> None:
    """A replica that closes connections without a response is ejected."""

    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    async with server, envoy(tmp_path, server.sockets[0].getsockname()[1]) as (port, admin):
        await until_ejected(port, admin)


async def test_refused(tmp_path: Path) -> None:
    """An unreachable replica is ejected."""
    async with envoy(tmp_path, free_port()) as (port, admin):
        await until_ejected(port, admin)
