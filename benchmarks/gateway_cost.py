"""Cost of a request: the whole product with its defaults compared with bare parts.

The sides alternate in short slices, so that other work on the machine affects all of them alike:

- bare: a Starlette handler that calls one gRPC service with grpc.aio;
- transcoder: Envoy's gRPC-JSON transcoder in front of the same service;
- direct: ``amarre up --direct``, the real gateway and services without proxies;
- sidecars: ``amarre up``, the whole product.

Figures are CPU microseconds per request and process, rates, and latencies. Ratios compare with
bare in the same round, and the median of the rounds is reported. Run ``make bench``; it takes
about five minutes and writes ``benchmarks/results.json`` and ``benchmarks/RESULTS.md``.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
import httpx
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
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from mesh.chassis.testing import free_port

FOLDER = Path(__file__).parent
DESCRIPTORS = FOLDER.parent / "protos/gen/amarre/contract.binpb"
SAMPLED = "0.05"
_IDLE_SECONDS = 5.0
PATHS = ("/api/v1/me", "/api/v1/health/status", "/api/v1/surveys/list")
BARE_PATH = "/api/v1/me"
"""The bare sides only have this path; every path of the product is compared with it."""


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

    app = Starlette(routes=[Route(BARE_PATH, answer)])
    port = int(listen.rpartition(":")[2])
    uvicorn.run(app, port=port, log_level="critical", access_log=False, lifespan="off", ws="none")


def descriptors(file: Path) -> None:
    """Write the contracts for the transcoder, which does not support ``response_body``."""
    found = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    for described in found.file:
        for service in described.service:
            for method in service.method:
                if method.options.HasExtension(annotations_pb2.http):
                    method.options.Extensions[annotations_pb2.http].response_body = ""
    file.write_bytes(found.SerializeToString())


def transcoder(port: int, target: str, contracts: Path) -> dict[str, Any]:
    """Return the configuration of an Envoy that transcodes to the service at *target*."""
    kind = "type.googleapis.com/envoy.extensions."
    host, _, service = target.rpartition(":")
    manager = {
        "@type": f"{kind}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "service"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "transcoder",
                "typed_config": {
                    "@type": f"{kind}filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
                    "proto_descriptor": str(contracts),
                    "services": ["amarre.auth.v1.AuthService"],
                },
            },
            {
                "name": "router",
                "typed_config": {"@type": f"{kind}filters.http.router.v3.Router"},
            },
        ],
    }
    cluster = {
        "name": "service",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{kind}upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": "service",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(host, service)}}]}],
        },
    }
    listener = {
        "name": "in",
        "address": _address("127.0.0.1", port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(host: str, port: int | str) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": int(port)}}


@dataclass
class Side:
    """One side of the comparison: its address and its processes."""

    name: str
    port: int
    processes: dict[str, psutil.Process]
    cookie: str = ""
    urls: dict[str, str] = field(default_factory=dict)
    """Where the product is, by name; empty for bare parts."""
    slices: dict[str, list["Slice"]] = field(default_factory=dict)
    idle: dict[str, float] = field(default_factory=dict)
    """CPU seconds per second that each process uses without requests."""

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds that each process has used."""
        return {name: sum(p.cpu_times()[:2]) for name, p in self.processes.items()}


@dataclass
class Slice:
    """Results of one slice: requests per second, seconds and CPU microseconds per request."""

    rate: float
    seconds: list[float]
    cpu: dict[str, float]

    @property
    def total(self) -> float:
        """CPU microseconds of all processes for one request."""
        return sum(self.cpu.values())


async def measure(side: Side, path: str, *, seconds: float, at_once: int) -> Slice:
    """Send requests for a while, *at_once* at a time."""
    before, started = side.cpu(), time.monotonic()
    taken = await asyncio.gather(*(ask(side, path, started + seconds) for _ in range(at_once)))
    done = [one for some in taken for one in some]
    lasted = time.monotonic() - started
    cpu = {
        # Without idle CPU use, which would weigh more on a slow machine.
        name: max(0.0, spent - before[name] - side.idle.get(name, 0) * lasted) / len(done) * 1e6
        for name, spent in side.cpu().items()
    }
    return Slice(len(done) / lasted, done, cpu)


async def ask(side: Side, path: str, until: float) -> list[float]:
    """Send requests one after another over one connection; return how long each took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    cookie = f"cookie: {side.cookie}\r\n" if side.cookie else ""
    request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\n{cookie}\r\n".encode()
    taken = []
    while (started := time.monotonic()) < until:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise SystemExit(f"{side.name} {path}: {head!r}")
        if (length := re.search(rb"content-length: (\d+)", head)) is not None:
            await reader.readexactly(int(length[1]))
        else:
            while size := int((await reader.readline()).strip(), 16):
                await reader.readexactly(size + 2)
            await reader.readline()
        taken.append(time.monotonic() - started)
    writer.close()
    return taken


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
async def bare_sides(folder: Path) -> AsyncIterator[list[Side]]:
    """Start the bare handler and the transcoder in front of one service each."""
    ours = (sys.executable, "-m", "benchmarks.gateway_cost")
    first, second, handler, envoy = (free_port() for _ in range(4))
    config, contracts = folder / "transcoder.json", folder / "contracts.binpb"
    descriptors(contracts)
    config.write_text(json.dumps(transcoder(envoy, f"127.0.0.1:{second}", contracts)))
    program = str(Path(sys.executable).with_name("envoy"))
    with (
        child(*ours, "serve", f"127.0.0.1:{first}") as one,
        child(*ours, "serve", f"127.0.0.1:{second}") as two,
        child(*ours, "handle", f"127.0.0.1:{handler}", f"127.0.0.1:{first}") as bare,
        child(
            program, "-c", str(config), "--concurrency", "1", "-l", "error", "--base-id", str(envoy)
        ) as proxy,
    ):
        sides = [
            Side("bare", handler, {"handler": bare, "service": one}),
            Side("transcoder", envoy, {"Envoy": proxy, "service": two}),
        ]
        for side in sides:
            await _until_it_answers(side)
        yield sides


@contextlib.asynccontextmanager
async def product(
    folder: Path,
    name: str,
    port_base: int,
    *options: str,
    program: Sequence[str] = ("-m", "mesh.cli"),
    sampled: str = SAMPLED,
) -> AsyncIterator[Side]:
    """Start the whole product, signed in, with the share *sampled* of traces.

    *program* are Python's arguments that run ``amarre``.
    """
    ready = folder / f"{name}.json"
    environment = os.environ | {
        "AMARRE_RATE_LIMITS": "off",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": sampled,
    }
    command = (
        *(sys.executable, *program, "up", "--port-base", str(port_base)),
        *("--data", str(folder / name), "--ready-file", str(ready), *options),
    )
    with child(*command, env=environment, stdout=subprocess.DEVNULL):
        until = time.monotonic() + 240
        while not ready.exists():
            if time.monotonic() > until:
                raise SystemExit(f"{name} did not start; run {' '.join(command)}")
            await asyncio.sleep(0.2)
        found = json.loads(ready.read_text())
        processes = {p["name"]: psutil.Process(p["pid"]) for p in found["processes"]}
        cookie = await asyncio.to_thread(_sign_in, found["urls"])
        yield Side(name, port_base, processes, cookie, found["urls"])


def _sign_in(urls: dict[str, str]) -> str:
    """Sign in with a magic link and return the cookie."""
    with httpx.Client(
        base_url=urls["app"], headers={"sec-fetch-site": "same-origin"}, trust_env=False, timeout=30
    ) as http:
        http.post("/api/v1/auth/signup", json={"email": "bench@example.org"}).raise_for_status()
        until = time.monotonic() + 60
        while not (mails := httpx.get(f"{urls['outbox']}/messages", trust_env=False).json()):
            if time.monotonic() > until:
                raise SystemExit("No mail arrived.")
            time.sleep(0.2)
        query = parse_qs(urlsplit(mails[0]["links"][0]).query)
        body = {"userId": query["userId"][0], "secret": query["secret"][0]}
        answer = http.post("/api/v1/auth/login", json=body).raise_for_status()
        cookie = answer.headers["set-cookie"].partition(";")[0]
        proof = {"cookie": cookie}
        http.post("/api/v1/surveys/requests", json={"consent": True}, headers=proof)
        return cookie


async def _until_it_answers(side: Side) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            await ask(side, BARE_PATH, time.monotonic() + 0.01)
        except (OSError, asyncio.IncompleteReadError, SystemExit):
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)
        else:
            return


async def compare(*, rounds: int, seconds: float, at_once: int, port_base: int) -> dict[str, Any]:
    """Measure all sides in turn and return the report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with (
            bare_sides(folder) as bare,
            product(folder, "direct", port_base, "--direct") as direct,
            product(folder, "sidecars", port_base + 500) as sidecars,
        ):
            plan = [(side, BARE_PATH) for side in bare]
            plan += [(side, path) for path in PATHS for side in (direct, sidecars)]
            for side, path in plan:  # Warm up connections, caches and compiled rules.
                await measure(side, path, seconds=1, at_once=at_once)
            await _measure_idle([*bare, direct, sidecars])
            for _ in range(rounds):
                for side, path in plan:
                    found = await measure(side, path, seconds=seconds, at_once=at_once)
                    side.slices.setdefault(path, []).append(found)
    reference = bare[0].slices[BARE_PATH]
    return {
        "idle_percent_of_a_core": {
            side.name: round(sum(side.idle.values()) * 100, 1) for side in (direct, sidecars)
        },
        "measured": datetime.now(UTC).date().isoformat(),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "settings": {"rounds": rounds, "seconds": seconds, "at_once": at_once, "sampled": SAMPLED},
        "results": [_result(side, path, reference) for side, path in plan],
    }


async def _measure_idle(sides: list[Side]) -> None:
    before = [side.cpu() for side in sides]
    await asyncio.sleep(_IDLE_SECONDS)
    for side, known in zip(sides, before, strict=True):
        side.idle = {n: (spent - known[n]) / _IDLE_SECONDS for n, spent in side.cpu().items()}


def _result(side: Side, path: str, reference: list[Slice]) -> dict[str, Any]:
    slices = side.slices[path]
    times = sorted(one for some in slices for one in some.seconds)
    return {
        "side": side.name,
        "path": path,
        "requests_per_second": round(statistics.median(s.rate for s in slices)),
        "rate_to_bare": round(
            statistics.median(s.rate / r.rate for s, r in zip(slices, reference, strict=True)), 2
        ),
        "cpu_us": round(statistics.median(s.total for s in slices)),
        "cpu_of_bare": round(
            statistics.median(r.total / s.total for s, r in zip(slices, reference, strict=True)), 2
        ),
        "p50_ms": round(times[len(times) // 2] * 1000, 2),
        "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 2),
        "cpu_us_of": {
            name: round(statistics.median(s.cpu[name] for s in slices))
            for name in side.processes
            if statistics.median(s.cpu[name] for s in slices) >= 1
        },
    }


def table(report: dict[str, Any]) -> str:
    """Return the report as a Markdown page."""
    settings, machine = report["settings"], report["machine"]
    how = (
        f"Measured {report['measured']} on {machine['cores']} cores, Python {machine['python']}: "
        f"{settings['rounds']} interleaved rounds of {settings['seconds']} s, "
        f"{settings['at_once']} connections, {float(settings['sampled']):.0%} of traces sampled."
    )
    columns = ("side", "path", "CPU µs", "bare ÷ CPU", "req/s", "÷ bare", "p50 ms", "p99 ms")
    lines = [
        "# Results",
        "",
        "Written by `make bench`; `benchmarks/gateway_cost.py` describes the method.",
        how,
        "",
        "Compare CPU ratios: rates and latencies include the effect of other work on the",
        "machine. A ratio of 0.5 means twice the cost of bare. CPU time that processes use without",
        "requests is subtracted: "
        + ", ".join(f"{k} {v} % of a core" for k, v in report["idle_percent_of_a_core"].items())
        + ".",
        "",
        f"| {' | '.join(columns)} | CPU µs by process |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for one in report["results"]:
        costs = sorted(one["cpu_us_of"].items(), key=lambda item: -item[1])
        parts = ", ".join(f"{name} {cost}" for name, cost in costs)
        lines.append(
            f"| {one['side']} | `{one['path']}` | {one['cpu_us']} | {one['cpu_of_bare']} "
            f"| {one['requests_per_second']} | {one['rate_to_bare']} "
            f"| {one['p50_ms']} | {one['p99_ms']} | {parts} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", nargs="?", default="compare")
    parser.add_argument("where", nargs="*")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--port-base", type=int, default=7000)
    asked = parser.parse_args()
    if asked.role == "serve":
        uvloop.run(serve(*asked.where))
    elif asked.role == "handle":
        handle(*asked.where)
    else:
        report = asyncio.run(
            compare(
                rounds=asked.rounds,
                seconds=asked.seconds,
                at_once=asked.at_once,
                port_base=asked.port_base,
            )
        )
        text = table(report)
        (FOLDER / "results.json").write_text(json.dumps(report, indent=2) + "\n")
        (FOLDER / "RESULTS.md").write_text(text)
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
