"""Faults of signing in: guesses, floods, a silent mail server, a locked database."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc
from amarre.auth.v1 import auth_service_pb2 as auth
from amarre.auth.v1.auth_service_pb2_grpc import AuthServiceStub

from mesh.contract import policy
from tests.e2e import faults as e2e
from tests.production.telemetry.patient import Patient, repeated

LOG_IN = policy.load().method("auth.LogIn")
SETTINGS = {"AMARRE_RATE_LIMITS": "on", "AMARRE_AUTH_LINKS_OVERALL": "120"}
"""Of the mesh: a fifth of the sign-in links that are available to all clients by default."""
WAITING = 30
FLOOD, PAUSE_SECONDS = 10, 0.1
"""Guesses, and sign-ups, before each pause: more would take the processors from other tests."""
AT_ONCE = 8
RETRY_SECONDS = 0.5
CHANNELS, SIGN_INS = 4, 70
"""Channels, and callers of each: together more than Auth admits, on each fewer than its streams."""


@contextmanager
def guessed_links(patient: Patient) -> Iterator[None]:
    """Somebody who guesses secrets, and a flood of sign-ups, from many networks."""

    async def guess(stub: Any, number: int) -> None:
        secret, client = f"{number:064x}", _network(number)
        await stub.LogIn(auth.LogInRequest(user_id="ada", secret=secret, client_address=client))

    async def guesses() -> None:
        await _made(patient, guess, FLOOD)
        await asyncio.sleep(PAUSE_SECONDS)

    async def sign_ups() -> None:
        await _made(patient, _sign_up, FLOOD)
        await asyncio.sleep(PAUSE_SECONDS)

    # Those that Survey refuses cost less, and count.
    with (
        patient.injected("survey.FindContact", abort="PERMISSION_DENIED"),
        repeated(guesses, sign_ups),
    ):
        yield


async def _sign_up(stub: Any, number: int) -> None:
    email = f"flood-{number}@example.org"
    await stub.SignUp(auth.SignUpRequest(email=email, client_address=_network(number)))


async def _made(patient: Patient, call: Callable[[Any, int], Awaitable[None]], count: int) -> None:
    """Make *call* with *count* numbers that were not used before."""
    at_once = asyncio.Semaphore(AT_ONCE)

    async def once(stub: Any, number: int) -> None:
        async with at_once:
            with suppress(grpc.aio.AioRpcError):
                await call(stub, number)

    async with patient.calls("auth") as channel:
        stub = AuthServiceStub(channel)
        await asyncio.gather(*(once(stub, next(_numbers)) for _ in range(count)))


_numbers = itertools.count()


def _network(number: int) -> str:
    return f"10.{number // 250 // 250}.{number // 250 % 250}.{number % 250}"


@contextmanager
def locked_database(patient: Patient) -> Iterator[None]:
    """A program that holds the lock on Auth's database, and more sign-ins than Auth admits."""

    async def sign_ins() -> None:
        async with patient.calls("auth") as channel:
            await asyncio.gather(*(sign_in(channel, number) for number in range(SIGN_INS)))

    async def sign_in(channel: grpc.aio.Channel, number: int) -> None:
        request = auth.LogInRequest(
            user_id="ada", secret=f"{number:064x}", client_address=f"10.8.0.{number}"
        )
        # All together would also end together.
        await asyncio.sleep(LOG_IN.deadline_seconds * number / SIGN_INS)
        while True:
            with suppress(grpc.aio.AioRpcError):
                await AuthServiceStub(channel).LogIn(request)
            await asyncio.sleep(RETRY_SECONDS)

    with e2e.locked(patient.mesh, "auth"), repeated(*(sign_ins for _ in range(CHANNELS))):
        yield


@contextmanager
def silent_mail_server(patient: Patient) -> Iterator[None]:
    """A mail server that accepts connections and never speaks, and researchers who sign up."""
    with e2e.hung(patient.mesh, "outbox"):
        # Those that come while REDCap is at fault get no mail.
        while not patient.site.query("sum(amarre_auth_mails_waiting) > 20"):
            asyncio.run(_made(patient, _sign_up, WAITING))
        yield
