"""Service configs for external clients match the contracts."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc as grpcio
import pytest

from mesh.chassis.testing import free_port
from mesh.contract import policy
from mesh.contract.policy import Method
from mesh.render import grpc

FILES = {name: json.loads(text) for name, text in grpc.render().items()}


@pytest.mark.parametrize("method", [pytest.param(m, id=m.short_name) for m in policy.load()])
def test_timeout_and_retries(method: Method) -> None:
    """
    Each method has its deadline as timeout, but at least 2 s, and is retried only if the contract
    permits it; a long-lived stream until its first response.

    Source:
        gRPC, service_config.proto: MethodConfig.timeout, MethodConfig.retry_policy.
    """
    (config,) = [
        config
        for config in FILES[f"{method.service}.json"]["methodConfig"]
        if method.name in {name["method"] for name in config["name"]}
    ]

    assert f"{max(2.0, method.deadline.total_seconds()):g}s" == config["timeout"]
    assert (method.may_retry or method.may_reopen) is ("retryPolicy" in config)


class Echo(grpcio.GenericRpcHandler):
    """Returns every request after a moment."""

    def service(self, handler_call_details: Any) -> Any:
        async def answer(request: bytes, _: Any) -> bytes:
            await asyncio.sleep(0.05)
            return request

        return grpcio.unary_unary_rpc_method_handler(answer)


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    """The address of a server that responds to every method."""
    server = grpcio.aio.server()
    server.add_generic_rpc_handlers([Echo()])
    address = f"127.0.0.1:{free_port()}"
    server.add_insecure_port(address)
    await server.start()
    yield address
    await server.stop(0)


async def called(address: str, config: str, path: str) -> bytes:
    """Call *path* as a client that takes its timeout from *config*."""
    options = [("grpc.service_config", config), ("grpc.use_local_subchannel_pool", 1)]
    async with grpcio.aio.insecure_channel(address, options=options) as channel:
        await channel.channel_ready()  # The timeout is that of the call, not of the connection.
        call: Any = channel.unary_unary(path)
        return bytes(await call(b"x"))


async def _patiently(address: str, config: str, path: str) -> bytes:
    """Make a call; on a busy machine, a call may take longer than the timeout of its contract."""
    for _ in range(4):
        try:
            return await called(address, config, path)
        except grpcio.aio.AioRpcError as exc:
            if exc.code() is not grpcio.StatusCode.DEADLINE_EXCEEDED:
                raise
    return await called(address, config, path)


async def test_calls_succeed(echo: str) -> None:
    """With these files, an external client can call every method."""
    for method in policy.load():
        config = json.dumps(FILES[f"{method.service}.json"])
        assert b"x" == await _patiently(echo, config, method.path), method.short_name


async def test_short_timeout(echo: str) -> None:
    """
    grpcio ends calls at once if the config has less than 2 s; once it does not, the bound can be
    removed.
    """
    name = {"service": "amarre.auth.v1.AuthService"}
    config = json.dumps({"methodConfig": [{"name": [name], "timeout": "1s"}]})

    with pytest.raises(grpcio.aio.AioRpcError) as ended:
        await called(echo, config, "/amarre.auth.v1.AuthService/GetProfile")
    assert grpcio.StatusCode.DEADLINE_EXCEEDED is ended.value.code()
