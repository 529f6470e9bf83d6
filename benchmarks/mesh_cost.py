"""
Cost of the mesh: the same handler and the same service bare, through two sidecars, and also
through the edge.

The sides alternate in short slices, so that other work on the machine affects all of them. Besides
rates it reports CPU microseconds per request, which other work disturbs less.
Every side has the event loop and the HTTP parser of our processes. The proxies do everything that
they do in production, including spans for one call in twenty, which a collector receives.

Run: ``python -m benchmarks.mesh_cost``; it takes a minute.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import psutil
import uvicorn
import uvloop
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1.survey_service_pb2_grpc import (
    SurveyServiceServicer,
    SurveyServiceStub,
    add_SurveyServiceServicer_to_server,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from mesh.chassis.testing import free_port
from mesh.render.envoy import Edge, Telemetry
from tests.sidecars.bed import KEY, Bed, bearer, bed, eventually

SLICE_SECONDS = 0.5
ROUNDS = 16
SAMPLED_PERCENT = 5.0
AUTHORITY = "survey.amarre.local"


class Surveys(SurveyServiceServicer):
    """Responds at once."""

    async def ListRequests(self, request: Any, context: Any) -> pb.ListRequestsResponse:  # noqa: N802 - the contract's name
        return pb.ListRequestsResponse()


async def serve(listen: str) -> None:
    """Run the bare gRPC service."""
    server = grpc.aio.server()
    surveys = Surveys()
    add_SurveyServiceServicer_to_server(surveys, server)
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    serving = health_pb2.HealthCheckResponse.SERVING
    await checks.set("amarre.survey.v1.SurveyService", serving)
    server.add_insecure_port(listen)
    await server.start()
    await server.wait_for_termination()


class Collector(TraceServiceServicer):
    """Receives spans and discards them."""

    async def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:  # noqa: N802 - the contract's name
        return ExportTraceServiceResponse()


async def collect(listen: str) -> None:
    """Run the collector."""
    server = grpc.aio.server()
    add_TraceServiceServicer_to_server(Collector(), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(listen)
    await server.start()
    await server.wait_for_termination()


def gateway(listen: str, target: str) -> None:
    """Run the bare handler: one call for each request, with a token if the mesh requires one."""
    state: dict[str, Any] = {}

    async def answer(request: Request) -> JSONResponse:
        if not state:
            options = [("grpc.default_authority", AUTHORITY)]
            channel = grpc.aio.insecure_channel(target, options=options)
            state["stub"] = SurveyServiceStub(channel)
        token = request.headers.get("x-token", "")
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        await state["stub"].ListRequests(pb.ListRequestsRequest(), metadata=metadata, timeout=5)
        return JSONResponse({"data": [], "error": None})

    where: dict[str, Any] = (
        {"uds": listen.removeprefix("unix:")}
        if listen.startswith("unix:")
        else {"host": "127.0.0.1", "port": int(listen.rpartition(":")[2])}
    )
    app = Starlette(routes=[Route("/", answer)])
    uvicorn.run(app, log_level="critical", access_log=False, lifespan="off", ws="none", **where)


@dataclass
class Side:
    """One side of the comparison: its address and its processes."""

    name: str
    port: int
    processes: dict[str, list[psutil.Process]]
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    requests: int = 0
    cpu: dict[str, float] = field(default_factory=dict)

    def _cpu(self) -> dict[str, float]:
        return {
            name: sum(sum(p.cpu_times()[:2]) for p in group)
            for name, group in self.processes.items()
        }

    async def slice(self, at_once: int) -> None:
        """Send requests for a while, *at_once* at a time."""
        before, started = self._cpu(), time.monotonic()
        taken = await asyncio.gather(
            *(ask(self.port, started + SLICE_SECONDS) for _ in range(at_once))
        )
        done = [one for some in taken for one in some]
        self.rates.append(len(done) / (time.monotonic() - started))
        self.seconds += done
        self.requests += len(done)
        for name, spent in self._cpu().items():
            self.cpu[name] = self.cpu.get(name, 0) + spent - before[name]

    def report(self) -> str:
        """Return one line of figures."""
        each = {name: spent / self.requests * 1e6 for name, spent in self.cpu.items()}
        parts = ", ".join(f"{name} {cost:.0f}" for name, cost in each.items())
        return (
            f"{self.name:<6} {statistics.median(self.rates):7.0f}/s   "
            f"p50 {statistics.median(self.seconds) * 1000:6.2f} ms   "
            f"CPU {sum(each.values()):5.0f} µs each ({parts})"
        )


async def ask(port: int, until: float) -> list[float]:
    """Send requests one after another over one connection; return how long each took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    token = bearer()[0][1].removeprefix("Bearer ")
    request = f"GET / HTTP/1.1\r\nhost: localhost\r\nx-token: {token}\r\n\r\n".encode()
    taken = []
    while (started := time.monotonic()) < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise SystemExit(f"refused: {head!r}")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        await reader.readexactly(length)
        taken.append(time.monotonic() - started)
    writer.close()
    return taken


@contextlib.asynccontextmanager
async def child(*arguments: str) -> AsyncIterator[psutil.Process]:
    """Run this file in another role."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.mesh_cost", *arguments
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def bare(stack: contextlib.AsyncExitStack) -> AsyncIterator[Side]:
    """Only handler and service."""
    inner, outer = free_port(), free_port()
    service = await stack.enter_async_context(child("serve", f"127.0.0.1:{inner}"))
    handler = await stack.enter_async_context(
        child("gateway", f"127.0.0.1:{outer}", f"127.0.0.1:{inner}")
    )
    yield Side("bare", outer, {"handler": [handler], "service": [service]})


async def meshed(place: Bed, *, edge: bool) -> Side:
    """The same two behind two sidecars, and optionally the edge, with all features on."""
    collector = f"127.0.0.1:{free_port()}"
    await place.stack.enter_async_context(child("collect", collector))
    telemetry = Telemetry(otlp=collector, sampling_percent=SAMPLED_PERCENT)
    service_socket = place.folder / "survey.sock"
    service = await place.stack.enter_async_context(child("serve", f"unix:{service_socket}"))
    proxy = place.proxy(
        "survey", "survey", app=f"unix:{service_socket}", inbound=f"127.0.0.1:{free_port()}"
    )
    keys = await place.key_set(KEY)
    inbound = await place.start(replace(proxy, key_set=keys, telemetry=telemetry))
    place.endpoints |= {"auth": (), "survey": (proxy.inbound,), "health": ()}
    asked = f"127.0.0.1:{free_port()}"
    app = f"unix:{place.folder}/app.sock"
    own = place.proxy("gateway", "gateway", app=app)
    at_edge = Edge(http=asked, rate_limits=False) if edge else None
    outbound = await place.start(replace(own, edge=at_edge, telemetry=telemetry))
    listen = app if edge else asked
    handler = await place.stack.enter_async_context(child("gateway", listen, own.egress))
    return Side(
        "edge" if edge else "mesh",
        int(asked.rpartition(":")[2]),
        {
            "handler": [handler],
            "service": [service],
            "gateway's Envoy": [psutil.Process(outbound.process.pid)],
            "service's Envoy": [psutil.Process(inbound.process.pid)],
        },
    )


async def compare() -> None:
    """Measure all sides alternately, with one and with sixteen concurrent requests."""
    async with bed() as place, bed() as other, bare(place.stack) as without:
        found = [without, await meshed(place, edge=False), await meshed(other, edge=True)]
        for side in found:
            await eventually(partial(_answers, side.port), side.name, within=60)
        for at_once in (1, 16):
            sides = [Side(s.name, s.port, s.processes) for s in found]
            for _ in range(ROUNDS):
                for side in sides:
                    await side.slice(at_once)
            print(f"{at_once} at once, on a machine with {os.cpu_count()} cores")
            for side in sides:
                print(f"  {side.report()}")
            for side in sides[1:]:
                ratio = statistics.median(side.rates) / statistics.median(sides[0].rates)
                added = statistics.median(side.seconds) - statistics.median(sides[0].seconds)
                print(f"  {side.name}/bare {ratio:.2f}, added p50 {added * 1000:.2f} ms")
        for name, group in found[-1].processes.items():
            if "Envoy" in name:
                print(f"  {name}: own memory {own_memory(group[0].pid):.1f} MB")


def own_memory(pid: int) -> float:
    """Return the private memory of a process, in megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


async def _answers(port: int) -> bool:
    try:
        return bool(await ask(port, time.monotonic() + 0.01))
    except (OSError, asyncio.IncompleteReadError, SystemExit):
        return False


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", nargs="?", default="compare")
    parser.add_argument("where", nargs="*")
    asked = parser.parse_args()
    if asked.role == "serve":
        uvloop.run(serve(*asked.where))
    elif asked.role == "collect":
        uvloop.run(collect(*asked.where))
    elif asked.role == "gateway":
        gateway(*asked.where)
    else:
        asyncio.run(compare())


if __name__ == "__main__":
    main()
