"""The bare sides: one gRPC service, and three ways to offer it as JSON over HTTP.

- bare: a Starlette handler that calls the service with grpc.aio;
- transcoder: Envoy's gRPC-JSON transcoder;
- grpc-gateway: Go's grpc-gateway, generated from our contracts.

Each has a service process of its own and one worker, without TLS, policy or telemetry.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import uvicorn
import uvloop
from amarre.auth.v1 import auth_pb2
from amarre.auth.v1 import auth_service_pb2 as pb
from amarre.auth.v1.auth_service_pb2_grpc import (
    AuthServiceServicer,
    AuthServiceStub,
    add_AuthServiceServicer_to_server,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.harness.load import Side, get, until_answered
from benchmarks.sides import grpc_gateway, transcoder
from mesh.chassis.testing import free_port

PATH = "/api/v1/me"
"""The only path of the bare sides; every path of the product is compared with it."""


class Auth(AuthServiceServicer):
    """Responds at once."""

    async def GetProfile(self, request: Any, context: Any) -> pb.GetProfileResponse:  # noqa: N802 - the contract's name
        return pb.GetProfileResponse(
            user=auth_pb2.User(id="ada", email="ada@example.org", labels=["applicant"])
        )


async def serve(listen: str) -> None:
    """Run the bare gRPC service."""
    server = grpc.aio.server()
    add_AuthServiceServicer_to_server(Auth(), server)
    server.add_insecure_port(listen)
    await server.start()
    await server.wait_for_termination()


def handle(listen: str, target: str) -> None:
    """Run the bare handler: one call for each request."""
    stubs: list[Any] = []

    async def answer(request: Request) -> JSONResponse:
        if not stubs:
            stubs.append(AuthServiceStub(grpc.aio.insecure_channel(target)))
        reply = await stubs[0].GetProfile(pb.GetProfileRequest(), timeout=5)
        user = {"id": reply.user.id, "email": reply.user.email, "labels": list(reply.user.labels)}
        return JSONResponse({"data": user, "error": None})

    app = Starlette(routes=[Route(PATH, answer)])
    port = int(listen.rpartition(":")[2])
    uvicorn.run(app, port=port, log_level="critical", access_log=False, lifespan="off", ws="none")


@contextlib.contextmanager
def child(*command: str, **options: Any) -> Iterator[psutil.Process]:
    """Run a program in its own process group, and stop that group."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield psutil.Process(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def sides(folder: Path) -> AsyncIterator[list[Side]]:
    """Start the sides; grpc-gateway is left out where Go is absent."""
    with contextlib.ExitStack() as stack:
        started = [_starlette(stack), _transcoder(stack, folder)]
        if (program := grpc_gateway.build()) is not None:
            started.append(_grpc_gateway(stack, program))
        for side in started:
            await until_answered(side, get(PATH, PATH))
        yield started


def _service(stack: contextlib.ExitStack) -> tuple[str, psutil.Process]:
    address = f"127.0.0.1:{free_port()}"
    return address, _ours(stack, "serve", address)


def _ours(stack: contextlib.ExitStack, *arguments: str) -> psutil.Process:
    return stack.enter_context(child(sys.executable, "-m", "benchmarks.sides.bare", *arguments))


def _starlette(stack: contextlib.ExitStack) -> Side:
    target, service = _service(stack)
    port = free_port()
    handler = _ours(stack, "handle", f"127.0.0.1:{port}", target)
    return Side("bare", port, {"handler": handler, "service": service})


def _transcoder(stack: contextlib.ExitStack, folder: Path) -> Side:
    target, service = _service(stack)
    port = free_port()
    config, contracts = folder / "transcoder.json", folder / "contracts.binpb"
    transcoder.write_contracts(contracts)
    config.write_text(json.dumps(transcoder.configuration(port, target, contracts)))
    program = str(Path(sys.executable).with_name("envoy"))
    options = ("--concurrency", "1", "-l", "error", "--base-id", str(port))
    envoy = stack.enter_context(child(program, "-c", str(config), *options))
    return Side("transcoder", port, {"Envoy": envoy, "service": service})


def _grpc_gateway(stack: contextlib.ExitStack, program: Path) -> Side:
    target, service = _service(stack)
    port = free_port()
    one_worker = os.environ | {"GOMAXPROCS": "1"}
    proxy = stack.enter_context(child(str(program), f"127.0.0.1:{port}", target, env=one_worker))
    return Side("grpc-gateway", port, {"Go": proxy, "service": service})


def main() -> None:
    """Run the service or the handler."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("serve", "handle"))
    parser.add_argument("where", nargs="+")
    asked = parser.parse_args()
    if asked.role == "serve":
        uvloop.run(serve(*asked.where))
    else:
        handle(*asked.where)


if __name__ == "__main__":
    main()
