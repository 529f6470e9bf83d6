"""The Compose stack on a real engine, started with the commands of its how-to page."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.integration.researcher import Researcher
from tests.production.containers.researchers import has_created, is_signed_in
from tests.production.containers.stack import TRY, NoEngineError, Stack, documented, until, why_not

ADA = "ada.lovelace@example.org"


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    """
    The stack, after the commands of the page; afterwards it is removed and the engine stopped.
    """
    if reason := why_not():
        pytest.skip(reason)
    made = Stack()
    before = interfaces()
    try:
        try:
            made.start_engine()
        except NoEngineError as error:
            pytest.skip(str(error))
        with made.network():
            for line in documented(TRY):
                made.line(line)
            yield made
    finally:
        if made.environment:
            with suppress(AssertionError):
                made.compose("--profile", "telemetry", "down", "--volumes", "--timeout", "5")
        made.engine("stop")
    assert (before, []) == (interfaces(), made.leftovers())


def interfaces() -> list[str]:
    """Return the network interfaces of this machine."""
    return sorted(name for _, name in socket.if_nameindex())


@pytest.fixture(scope="package")
def trusted(stack: Stack) -> ssl.SSLContext:
    """The certificate of the edge as the only trusted one."""
    return ssl.create_default_context(cafile=str(stack.folder / "secrets/edge/tls.crt"))


@pytest.fixture(scope="package")
def ready(stack: Stack) -> dict[str, Any]:
    """The addresses that a researcher needs."""
    token = (stack.folder / "secrets/redcap-token").read_text().strip()
    return {
        "urls": {"app": "https://localhost", "outbox": "http://localhost:3011"},
        "sandbox": {"api_url": "http://localhost:3010/api/", "token": token},
        "ca": str(stack.folder / "secrets/edge/tls.crt"),
    }


@pytest.fixture(scope="package")
def ada(ready: dict[str, Any]) -> Iterator[Researcher]:
    """A signed-in user with a request."""
    with Researcher(ready, ADA) as researcher:
        # A busy machine may exceed a deadline; the answer then says to try again.
        until("a sign-in", lambda: is_signed_in(researcher))
        until("a request", lambda: has_created(researcher))
        yield researcher
