"""A session that ends at one gateway ends at the others."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from mesh.chassis.testing import free_port
from mesh.local.data_folder import DataFolder
from mesh.local.processes.plan import Options, Plan
from tests.integration.researcher import COOKIE, Researcher
from tests.live import running

MOST_SECONDS = 5.0


@contextlib.contextmanager
def another_gateway(ready: Any) -> Iterator[str]:
    """Start a second gateway with the environment of the first; yields its URL."""
    data_folder = DataFolder(Path(ready["pki"]["ca"]).parents[2])
    port = int(urlsplit(ready["urls"]["app"]).port or 80)
    plan = Plan(data_folder, Options(port_base=port, direct=True))
    first = next(unit for unit in plan.units if unit.name == "gateway")
    listen = f"127.0.0.1:{free_port()}"
    environment = {
        **first.environment,
        "AMARRE_INSTANCE": "gateway-2",
        "AMARRE_GATEWAY_HTTP_LISTEN": listen,
        "AMARRE_GATEWAY_HTTPS_LISTEN": "",
        "AMARRE_METRICS_LISTEN": "",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway"],
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://{listen}/healthz", trust_env=False).is_success:
                    break
            time.sleep(0.05)
        yield f"http://{listen}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """A running mesh and the URL of a second gateway."""
    with (
        running(tmp_path_factory.mktemp("mesh"), "--direct") as ready,
        another_gateway(ready) as second,
    ):
        yield ready, second


def status_at(gateway: str, session: str) -> int:
    headers = {"Cookie": f"{COOKIE}={session}"}
    return httpx.get(f"{gateway}/api/v1/me", headers=headers, trust_env=False).status_code


@pytest.mark.parametrize("everywhere", [False, True], ids=["here", "everywhere"])
def test_log_out(gateways: tuple[Any, str], *, everywhere: bool) -> None:
    """
    After a log-out, the gateway that handled it rejects the session at once, the other one within 5
    s.
    """
    ready, second = gateways
    email = f"nomad.{os.urandom(4).hex()}@example.org"
    with Researcher(ready, email) as here, Researcher(ready, email) as there:
        here.sign_in()
        there.sign_in()
        first = here.app
        mine, other_device = here.session, there.session
        for gateway in (first, second):
            assert [200, 200] == [status_at(gateway, s) for s in (mine, other_device)]

        here.data("POST", "/api/v1/auth/logout", json={"everywhere": everywhere})
        ended_at = time.monotonic()

        assert 401 == status_at(first, mine)
        assert (401 if everywhere else 200) == status_at(first, other_device)
        while status_at(second, mine) != 401:
            assert time.monotonic() - ended_at < MOST_SECONDS
            time.sleep(0.1)
        if everywhere:
            while status_at(second, other_device) != 401:
                assert time.monotonic() - ended_at < MOST_SECONDS
                time.sleep(0.1)


def test_end_another_device(gateways: tuple[Any, str]) -> None:
    """
    A session that is ended from another device is rejected at once by the gateway that handled it,
    and within 5 s by the other one.
    """
    ready, second = gateways
    email = f"nomad.{os.urandom(4).hex()}@example.org"
    with Researcher(ready, email) as here, Researcher(ready, email) as lost:
        lost.sign_in()
        here.sign_in()
        for gateway in (here.app, second):
            assert [200, 200] == [status_at(gateway, s) for s in (here.session, lost.session)]
        listed = here.data("GET", "/api/v1/auth/sessions")
        (other,) = [one["id"] for one in listed if not one["current"]]

        here.data("POST", "/api/v1/auth/sessions/end", json={"id": other})
        ended_at = time.monotonic()

        assert [200, 401] == [status_at(here.app, s) for s in (here.session, lost.session)]
        while status_at(second, lost.session) != 401:
            assert time.monotonic() - ended_at < MOST_SECONDS
            time.sleep(0.1)
        assert 200 == status_at(second, here.session)
