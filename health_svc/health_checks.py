"""Health checks: services by ``grpc.health.v1``, backends by an HTTP GET."""

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from health_svc.ports import Check, PartDownError
from health_svc.status import GIVE_UP
from mesh.chassis import telemetry


def service(channel: grpc.aio.Channel) -> Check:
    """Return the check of the service behind *channel*."""
    stub = health_pb2_grpc.HealthStub(channel)

    async def check() -> None:
        try:
            answer = await stub.Check(
                health_pb2.HealthCheckRequest(), timeout=GIVE_UP.total_seconds()
            )
        except grpc.aio.AioRpcError as exc:
            if exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError from exc
            raise PartDownError(f"Does not respond ({exc.code().name}).") from exc
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise PartDownError("Reports NOT_SERVING; a dependency may be unavailable.")

    return check


def backend(client: httpx.AsyncClient, url: str) -> Check:
    """Return the check of the backend at *url*: healthy when it returns 2xx."""

    async def check() -> None:
        try:
            answer = await client.get(url)
        except httpx.TimeoutException as exc:
            raise TimeoutError from exc
        except httpx.HTTPError as exc:
            raise PartDownError(f"Does not respond ({type(exc).__name__}).") from exc
        if not answer.is_success:
            raise PartDownError(f"Returns HTTP {answer.status_code}.")

    return check


def http_client() -> httpx.AsyncClient:
    """Return the HTTP client for backends: no redirects, no proxy from the environment."""
    return telemetry.http_client(timeout=GIVE_UP.total_seconds())
