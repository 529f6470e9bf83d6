"""Whether a process of the local mesh is ready."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.local.plan import Unit
from mesh.topology import TRUST_DOMAIN, Probe

PROBE_SECONDS = 1.0


def probe(unit: Unit, certs: Path) -> Callable[[], Awaitable[bool]]:
    """Return the function that says whether *unit* is ready."""
    if unit.probe is Probe.GRPC:
        return _grpc_probe(unit, certs)
    return _http_probe(unit.probe_target)


def _http_probe(url: str) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        try:
            async with httpx.AsyncClient(timeout=PROBE_SECONDS, trust_env=False) as client:
                return (await client.get(url)).is_success
        except httpx.HTTPError:
            return False

    return ready


def _grpc_probe(unit: Unit, certs: Path) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        folder = certs / "operator"
        credentials = grpc.ssl_channel_credentials(
            *((folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
        )
        name = f"{unit.process.identity}.{TRUST_DOMAIN}"
        options = (("grpc.ssl_target_name_override", name),)
        async with grpc.aio.secure_channel(
            unit.probe_target, credentials, options=options
        ) as channel:
            request = health_pb2.HealthCheckRequest(service=unit.process.probe_path)
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(
                    request, timeout=PROBE_SECONDS
                )
            except grpc.aio.AioRpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return ready
