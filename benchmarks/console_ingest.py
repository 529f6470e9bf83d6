"""
Console benchmark: ingestion rate, memory, and search time.

    python benchmarks/console_ingest.py [--spans 200000] [--rate 5000] [--services 1000] [--pages]

Runs a console in a temporary folder, on one core, sends spans over OTLP gRPC at a steady rate and
prints the spans stored, CPU time and memory of the console, and the time of searches; with
``--pages`` also how long each page takes in Chromium until it shows its data. ``--services`` lets
as many more services call one another.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from playwright.async_api import async_playwright

from mesh.chassis.testing import free_port

PER_TRACE = 8
CHAIN = ("gateway-envoy", "gateway", "gateway-envoy", "survey-envoy", "survey", "survey")
METHODS = ("ListRequests", "CreateRequest", "GetLink", "ExportData", "GetPdf")
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SEARCHES = {
    "newest": {},
    "service": {"service": "survey"},
    "rpc": {"rpc": "survey.ListRequests"},
    "errors of an rpc": {"rpc": "survey.GetPdf", "status": "error"},
    "slow of a service": {"service": "survey", "min_ms": "499"},
    "attribute": {"attr": "amarre.number=77"},
    "rare attribute": {"attr": "amarre.number=nothing"},
}

PAGES = {
    "/": "main .service",
    "/graph": "main svg",
    "/traces": "main a[data-row]",
    "/traces/{trace}": "main [role=treeitem]",
    "/logs": "main h1",
    "/metrics": "main tbody tr",
    "/mesh": "main section",
}
"""An element of each page that appears with its data."""


def batch(traces: int, number: int) -> bytes:
    """Return one request with *traces* traces of `PER_TRACE` spans that end now."""
    request = ExportTraceServiceRequest()
    spans = {}
    for service in ("gateway", "gateway-envoy", "survey", "survey-envoy"):
        resource = request.resource_spans.add()
        pair = resource.resource.attributes.add(key="service.name")
        pair.value.string_value = service
        spans[service] = resource.scope_spans.add().spans
    for one in range(traces):
        _trace(spans, number + one)
    return request.SerializeToString()


def crowd(services: int) -> bytes:
    """Return one request in which each of *services* services is called by the one before."""
    request = ExportTraceServiceRequest()
    trace_id, parent = os.urandom(16), b""
    now = time.time_ns()
    for number in range(services):
        if number % 20 == 0:
            trace_id, parent = os.urandom(16), b""
        resource = request.resource_spans.add()
        name = resource.resource.attributes.add(key="service.name")
        name.value.string_value = f"team{number:04}"
        span = resource.scope_spans.add().spans.add(
            trace_id=trace_id, span_id=os.urandom(8), parent_span_id=parent, kind=2
        )
        span.name = f"team.v1.Team{number}/Call"
        for key, value in (("rpc.system.name", "grpc"), ("rpc.method", span.name)):
            span.attributes.add(key=key).value.string_value = value
        span.start_time_unix_nano, span.end_time_unix_nano = now - 50_000_000, now
        parent = span.span_id
    return request.SerializeToString()


def _trace(spans: dict[str, Any], number: int) -> None:
    trace_id, parent = os.urandom(16), b""
    method = random.choice(METHODS)
    total = random.randrange(2_000_000, 500_000_000)
    end = time.time_ns()
    for depth, service in enumerate((*CHAIN, "survey", "survey")[:PER_TRACE]):
        span = spans[service].add(trace_id=trace_id, span_id=os.urandom(8), parent_span_id=parent)
        span.name = f"amarre.survey.v1.SurveyService/{method}" if depth < 6 else "SELECT"
        span.kind = 2 if depth in {0, 1, 3, 4} else 3
        span.start_time_unix_nano = end - total + depth * 100_000
        span.end_time_unix_nano = end - depth * 100_000
        for key, value in (
            ("rpc.system.name", "grpc"),
            ("rpc.method", span.name),
            ("rpc.response.status_code", "INTERNAL" if number % 50 == 0 else "OK"),
            ("amarre.caller", "gateway"),
            ("enduser.pseudo.id", f"{number % 1000:016x}"),
            ("server.address", "127.0.0.1"),
            ("network.protocol.version", "2"),
        ):
            span.attributes.add(key=key).value.string_value = value
        span.attributes.add(key="amarre.number").value.int_value = number % 1000
        parent = span.span_id


async def send(address: str, spans: int, rate: int, services: int) -> tuple[float, int]:
    """Send *spans* at *rate* a second, and one of each of *services*.

    Returns how long it took and how many spans were rejected.
    """
    each = 64
    requests = [batch(each, n * each) for n in range(24)]
    refused = 0
    async with grpc.aio.insecure_channel(address) as channel:
        export: Any = channel.unary_unary(EXPORT)
        await export(crowd(services))
        started = time.monotonic()
        sent = 0
        while sent < spans:
            # Created again each time, so that ids do not repeat and times are current.
            requests[sent // (each * PER_TRACE) % len(requests)] = batch(each, sent)
            try:
                await export(requests[sent // (each * PER_TRACE) % len(requests)])
            except grpc.aio.AioRpcError:
                refused += each * PER_TRACE
            sent += each * PER_TRACE
            await asyncio.sleep(max(0.0, started + sent / rate - time.monotonic()))
        return time.monotonic() - started, refused


async def search(url: str, token: str) -> None:
    """Print how long each search takes, best of 3, and what it found."""
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}) as client:
        for name, parameters in SEARCHES.items():
            took = []
            for _ in range(3):
                started = time.perf_counter()
                answer = await client.get(f"{url}/api/traces", params=parameters, timeout=30)
                took.append(time.perf_counter() - started)
            page = answer.json()
            more = ", goes on" if page["nextPageToken"] else ""
            print(f"  {name:20} {min(took) * 1000:7.1f} ms  {len(page['items'])} traces{more}")


async def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=60_000)
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--services", type=int, default=0)
    parser.add_argument("--pages", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ports = [free_port() for _ in range(3)]
        names = ("LISTEN", "OTLP_GRPC", "OTLP_HTTP")
        environment = {
            **os.environ,
            **{f"AMARRE_CONSOLE_{n}": f"127.0.0.1:{p}" for n, p in zip(names, ports, strict=True)},
            "AMARRE_CONSOLE_DATABASE": f"{folder}/console.sqlite",
            "AMARRE_CONSOLE_TOKEN_FILE": f"{folder}/token",
            "AMARRE_LOG_LEVEL": "WARNING",
        }
        process = subprocess.Popen([sys.executable, "-m", "mesh.console"], env=environment)
        psutil.Process(process.pid).cpu_affinity([(os.cpu_count() or 1) - 1])
        try:
            await measure(psutil.Process(process.pid), Path(folder), ports, given)
        finally:
            process.terminate()
            process.wait(20)


async def measure(
    process: psutil.Process, folder: Path, ports: list[int], given: argparse.Namespace
) -> None:
    """Send spans, wait until all are written, then search."""
    url = f"http://127.0.0.1:{ports[0]}"
    async with httpx.AsyncClient() as client:
        while True:
            try:
                await client.get(f"{url}/healthz")
                break
            except httpx.HTTPError:
                await asyncio.sleep(0.05)
        idle = process.memory_info().rss
        before = process.cpu_times()
        took, refused = await send(f"127.0.0.1:{ports[1]}", given.spans, given.rate, given.services)
        client.headers["authorization"] = f"Bearer {(folder / 'token').read_text()}"
        kept, started = 0, time.monotonic()
        while kept < given.spans - refused and time.monotonic() - started < 120:
            page = (await client.get(f"{url}/api/intake")).json()
            kept = sum(service["spans"] for service in page["kept"])
            await asyncio.sleep(0.05)
        lag = time.monotonic() - started
    after = process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    size = (folder / "console.sqlite").stat().st_size
    print(f"sent       {given.spans} spans in {took:.1f} s ({given.spans / took:.0f}/s)")
    print(f"kept       {kept}, refused {refused}, behind {lag:.1f} s")
    print(f"CPU        {cpu:.1f} s, {cpu / given.spans * 1e6:.0f} µs per span")
    print(f"memory     {idle / 1e6:.0f} MB idle, {peak(process):.0f} MB at most")
    print(f"file       {size / 1e6:.0f} MB, {size / max(1, kept):.0f} bytes per span")
    await search(url, (folder / "token").read_text())
    print(f"memory     {peak(process):.0f} MB at most, searches included")
    if given.pages:
        await pages(url, (folder / "token").read_text())


def peak(process: psutil.Process) -> float:
    """Return the peak memory of *process*, in megabytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    line = next(one for one in status.splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


async def pages(url: str, token: str) -> None:
    """Print how long each page takes, best of 3, from navigation to its data."""
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}) as client:
        trace = (await client.get(f"{url}/api/traces", timeout=30)).json()["items"][0]["traceId"]
        code = (await client.post(f"{url}/api/codes")).json()["path"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = await browser.new_page()
        await page.goto(f"{url}{code}")
        await page.wait_for_url(f"{url}/")
        for path, shown in PAGES.items():
            took = []
            for _ in range(3):
                started = time.perf_counter()
                await page.goto(f"{url}{path.format(trace=trace)}")
                await page.locator(shown).first.wait_for()
                took.append(time.perf_counter() - started)
            print(f"  page {path:20} {min(took) * 1000:7.1f} ms")
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
