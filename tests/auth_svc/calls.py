"""Calls to Auth as the gateway makes them."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from amarre.auth.v1 import auth_service_pb2 as pb
from amarre.auth.v1.auth_service_pb2_grpc import AuthServiceStub

from auth_svc.service import register
from mesh.chassis.errors import from_rpc_error
from mesh.chassis.testing import connected, served
from tests.auth_svc.harness import Harness, MailedLink, link_in

CHROME = "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36"


@contextlib.asynccontextmanager
async def called_by(caller: str, harness: Harness, svids: Path) -> AsyncIterator[Any]:
    """Serve Auth; yield a stub that calls it as the workload *caller*."""
    async with (
        served(
            register(harness.service),
            svids / "auth",
            audience="auth",
            key=harness.key,
            revoked=harness.revocations,
        ) as port,
        connected("auth", port, svids / caller, AuthServiceStub) as stub,
    ):
        yield stub


async def reason_of(call: Any) -> tuple[str, str]:
    """Return the gRPC code and the REST code of the error of *call*."""
    with pytest.raises(grpc.aio.AioRpcError) as ei:
        await call
    return ei.value.code().name, from_rpc_error(ei.value).contract.code


async def named(call: Any) -> str:
    """Return the reason of the error of *call*."""
    with pytest.raises(grpc.aio.AioRpcError) as ei:
        await call
    return from_rpc_error(ei.value).contract.name


async def sign_up(auth: Any, harness: Harness, email: str = "ada@example.org") -> MailedLink:
    answer = await auth.SignUp(pb.SignUpRequest(email=email, client_address="192.0.2.1"))
    assert answer.signed_up
    return link_in(harness.mailer.sent[-1])


async def log_in(auth: Any, link: MailedLink) -> Any:
    return await auth.LogIn(
        pb.LogInRequest(user_id=link.user_id, secret=link.secret, user_agent=CHROME)
    )


async def as_user(auth: Any, secret: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call to Auth for the user behind *secret*."""
    verified = await auth.VerifySession(
        pb.VerifySessionRequest(session_secret=secret, audience="auth")
    )
    return (("authorization", f"Bearer {verified.user_token}"),)
