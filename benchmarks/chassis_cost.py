"""Cost of the layers of one call between two of our processes, in CPU microseconds.

Client and server run in this process, over loopback TCP: bare grpc.aio, the same with mTLS, and
the whole chassis. The single checks are timed without a call. Cases alternate, and the minimum of
the rounds is reported: the cost without the effect of other work on the machine.
"""

import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from amarre.auth.v1 import auth_service_pb2 as auth
from amarre.health.v1 import health_service_pb2 as pb
from amarre.health.v1 import health_service_pb2_grpc as rpc

from gateway.server.admission import Admission
from mesh.chassis.call import User
from mesh.chassis.credentials.peer_certificates import check_own
from mesh.chassis.credentials.tls import SvidFiles, channel_credentials, server_credentials
from mesh.chassis.identity import SpiffeId
from mesh.chassis.interceptors.authorization import authorize_caller
from mesh.chassis.interceptors.validation import validate
from mesh.chassis.testing import FixedKeys, connected, free_port, served
from mesh.chassis.tokens import SigningKey, TokenVerifier, mint
from mesh.contract import policy
from mesh.local.pki.certificate_authority import CertificateAuthority, issue_all

CALLS, ROUNDS = 300, 20
_GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")

Once = Callable[[], Awaitable[object]]


class Health(rpc.HealthServiceServicer):
    """Responds at once."""

    async def GetStatus(self, request: Any, context: Any) -> pb.GetStatusResponse:  # noqa: N802 - the contract's name
        return pb.GetStatusResponse()


def register(server: Any) -> None:
    """Register the service."""
    rpc.add_HealthServiceServicer_to_server(Health(), server)


async def measure() -> dict[str, dict[str, float]]:
    """Return the cost of one call on each transport, and that of single checks."""
    with tempfile.TemporaryDirectory() as name:
        issue_all(CertificateAuthority.create(), Path(name))
        async with contextlib.AsyncExitStack() as stack:
            calls = await _calls(stack, Path(name))
            return {"calls": await _minima(calls), "checks": await _minima(_checks())}


async def _calls(stack: contextlib.AsyncExitStack, svids: Path) -> dict[str, Once]:
    plain = await stack.enter_async_context(_bare(None, None))
    of_server = server_credentials(SvidFiles(svids / "health"), check_own)
    of_client = channel_credentials(SvidFiles(svids / "gateway"))
    secure = await stack.enter_async_context(_bare(of_server, of_client))
    port = await stack.enter_async_context(served(register, svids / "health"))
    whole = await stack.enter_async_context(
        connected("health", port, svids / "gateway", rpc.HealthServiceStub)
    )
    stubs = {"bare grpc.aio": plain, "with mTLS": secure, "with the chassis": whole}
    return {name: _call(stub) for name, stub in stubs.items()}


def _call(stub: Any) -> Once:
    async def once() -> object:
        return await stub.GetStatus(pb.GetStatusRequest(), timeout=5)

    return once


@contextlib.asynccontextmanager
async def _bare(
    of_server: grpc.ServerCredentials | None, of_client: grpc.ChannelCredentials | None
) -> AsyncIterator[Any]:
    address = f"127.0.0.1:{free_port()}"
    server = grpc.aio.server()
    register(server)
    if of_server is None or of_client is None:
        server.add_insecure_port(address)
        channel = grpc.aio.insecure_channel(address)
    else:
        server.add_secure_port(address, of_server)
        named = [("grpc.ssl_target_name_override", "health.amarre.local")]
        channel = grpc.aio.secure_channel(address, of_client, options=named)
    await server.start()
    async with channel:
        yield rpc.HealthServiceStub(channel)
    await server.stop(None)


def _checks() -> dict[str, Once]:
    key = SigningKey.generate()
    user = User("ada", "session", "ada@example.org", ("applicant",))
    token, _ = mint(key, user, audience="auth", caller=_GATEWAY)
    known = TokenVerifier(FixedKeys(key), audience="auth")
    method = policy.load().by_path["/amarre.auth.v1.AuthService/SignUp"]
    request = auth.SignUpRequest(email="ada@example.org")
    admission = Admission(target_seconds=1, oldest_seconds=5, least=16, most=128)

    async def rbac() -> None:
        authorize_caller(method, _GATEWAY)

    async def cached_token() -> object:
        return await known.verify(token, caller=_GATEWAY)

    async def new_token() -> object:
        fresh = TokenVerifier(FixedKeys(key), audience="auth")
        return await fresh.verify(token, caller=_GATEWAY)

    async def issued_token() -> object:
        return mint(key, user, audience="auth", caller=_GATEWAY)

    async def validation() -> None:
        validate(request)

    async def empty_validation() -> None:
        validate(auth.GetProfileRequest())

    async def limit() -> None:
        admission.admit(0.0)
        admission.release()

    return {
        "RBAC: may the caller call the method": rbac,
        "JWT, verified before": cached_token,
        "JWT, verified for the first time": new_token,
        "JWT, issued": issued_token,
        "validation of `SignUpRequest`": validation,
        "validation of an empty request": empty_validation,
        "concurrency limit of the gateway": limit,
    }


async def _minima(cases: dict[str, Once]) -> dict[str, float]:
    found: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, once in cases.items():
            spent = await _cpu_us(once)
            found[name] = round(min(spent, found.get(name, spent)), 1)
    return found


async def _cpu_us(once: Once) -> float:
    await once()
    started = time.process_time()
    for _ in range(CALLS):
        await once()
    return (time.process_time() - started) / CALLS * 1e6
