"""Readiness probes of the processes of a local mesh."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.chassis.channel import NO_PROXY
from mesh.local.processes.envoy import PLAIN, Admin
from mesh.local.processes.plan import Unit
from mesh.render.envoy import Proxy
from mesh.topology import TRUST_DOMAIN, Probe

PROBE_SECONDS = 1.0
Ready = Callable[[], Awaitable[bool]]


def probe(unit: Unit, certs: Path) -> Ready:
    """Return a function that returns whether *unit* is ready."""
    if unit.proxy is not None:
        return _proxy_probe(unit.proxy)
    if unit.probe is Probe.GRPC:
        return _grpc_probe(unit, certs)
    return _http_probe(unit)


def _http_probe(unit: Unit) -> Ready:
    target = unit.probe_target
    socket = target.removeprefix("unix:") if target.startswith("unix:") else None
    url = f"{'http://localhost' if socket else target}{unit.process.probe_path}"

    async def ready() -> bool:
        transport = httpx.AsyncHTTPTransport(uds=socket, verify=PLAIN)
        try:
            async with httpx.AsyncClient(
                transport=transport, timeout=PROBE_SECONDS, trust_env=False
            ) as client:
                return (await client.get(url)).is_success
        except httpx.HTTPError:
            return False

    return ready


def _proxy_probe(proxy: Proxy) -> Ready:
    async def ready() -> bool:
        async with Admin(proxy.admin) as admin:
            return await admin.is_ready()

    return ready


def _grpc_probe(unit: Unit, certs: Path) -> Ready:
    async def ready() -> bool:
        async with _channel(unit, certs) as channel:
            request = health_pb2.HealthCheckRequest(service=unit.process.probe_path)
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(
                    request, timeout=PROBE_SECONDS
                )
            except grpc.aio.AioRpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return ready


def _channel(unit: Unit, certs: Path) -> Any:
    if unit.probe_target.startswith("unix:"):
        return grpc.aio.insecure_channel(unit.probe_target, options=NO_PROXY)
    folder = certs / "operator"
    credentials = grpc.ssl_channel_credentials(
        *((folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
    )
    name = f"{unit.process.identity}.{TRUST_DOMAIN}"
    options = (*NO_PROXY, ("grpc.ssl_target_name_override", name))
    return grpc.aio.secure_channel(unit.probe_target, credentials, options=options)
