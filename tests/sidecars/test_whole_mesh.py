"""The mesh as `amarre up` starts it: control actions under load, without losing a call."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from tests.sidecars.support.bed import eventually
from tests.sidecars.support.running import Load, Running, mesh

LIST = "/api/v1/surveys/requests"


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Stop processes with SIGSTOP while the body runs."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """A mesh with two replicas of Survey and of the gateway."""
    with mesh("--replicas", "survey=2", "--replicas", "gateway=2") as started:
        yield started


@pytest.fixture
async def ada(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    """A signed-in user."""
    async with running.client() as client:
        await running.sign_in(client)
        yield client


class TestProcesses:
    def test_every_service_has_its_envoy(self, running: Running) -> None:
        """The ready file lists an Envoy for every service, including replicas."""
        services = {"gateway", "gateway-2", "auth", "survey", "survey-2", "health"}
        assert services | {f"{name}-envoy" for name in services} <= running.names()

    def test_services_listen_on_sockets_only_their_user_can_open(self, running: Running) -> None:
        """The socket folder of each pair is inaccessible to others."""
        for name in ("gateway", "auth", "survey", "health"):
            folder = running.data / "run" / name
            assert 0o700 == folder.stat().st_mode & 0o777
            assert (folder / "app.sock").is_socket()

    async def test_status(self, running: Running) -> None:
        """`amarre status` shows everything as ready."""
        text = await running.amarre("status")
        assert " no " not in text

    async def test_connections_are_spread_over_gateways(self, running: Running) -> None:
        """Both gateways get connections to the printed address."""
        for _ in range(60):
            async with running.client() as client:
                assert 200 == (await client.get("/healthz")).status_code

        for name in ("gateway-envoy", "gateway-2-envoy"):
            async with running.admin(name) as admin:
                counted = await admin.counters("^http[.]edge_http[.]downstream_rq_total$")
            assert sum(counted.values()) > 5

    async def test_killed_replica(self, running: Running, ada: httpx.AsyncClient) -> None:
        """While one of two replicas is killed and restarts, retryable calls succeed.

        Not one in fifty is lost: the retry budget may run dry before the replica is ejected.
        """
        before = running.pid("survey-2")
        async with Load(ada, LIST, 60) as load:
            os.kill(before, signal.SIGKILL)

            async def is_back() -> bool:
                return running.pid("survey-2") not in {0, before}

            await eventually(is_back, "the replica", within=30)
            while load.answers["200"] < 200:
                await asyncio.sleep(0.1)

        assert len(load.failures) <= load.answers["200"] / 50, load.failures
        assert set(load.answers) <= {"200", "503"}


class TestFaults:
    async def test_through_the_gateway(self, running: Running, ada: httpx.AsyncClient) -> None:
        """A fault that the command adds is effective, listed and removed again."""
        await running.amarre("fault", "add", "survey.ListRequests", "--abort", "UNAVAILABLE")

        async def fails() -> bool:
            return (await ada.get(LIST)).status_code == 503

        async def works() -> bool:
            return (await ada.get(LIST)).status_code == 200

        await eventually(fails, "the fault")
        assert "UNAVAILABLE" in await running.amarre("fault", "list")
        await running.amarre("fault", "clear")
        await eventually(works, "its removal")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["fault", "add", "survey.Nothing", "--delay", "1s"], "survey.ListRequests"),
            (["fault", "add", "survey.ListRequests"], "delay"),
            (["fault", "add", "survey.ListRequests", "--abort", "NONSENSE"], "UNAVAILABLE"),
            (["canary", "set", "survey", "10"], "no canary"),
            (["canary", "start", "redcap"], "survey"),
            (["canary", "start", "survey", "--command", "no-such-program"], "no-such-program"),
            (["restart", "nobody"], "survey"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    async def test_bad_orders(self, running: Running, arguments: list[str], said: str) -> None:
        """An invalid action is rejected with a helpful message; nothing changes."""
        before = running.names()

        status, text = await running.try_amarre(*arguments)

        assert 2 == status
        assert said in text
        assert before == running.names()


class TestCanary:
    async def test_bad_version_is_aborted(self, running: Running, ada: httpx.AsyncClient) -> None:
        """
        A version that fails every call loses its share at once, judged by gRPC statuses at the
        gateway's Envoy; afterwards the mesh is unchanged.
        """
        before = running.names()
        program = f"{sys.executable} -m tests.sidecars.support.failing_survey"
        async with Load(ada, LIST, 40) as load:
            await running.amarre("canary", "start", "survey", "--command", program)

            async def is_over() -> bool:
                return "aborted" in (await running.canary())["state"]

            await eventually(is_over, "the abort", within=30)
        failed = load.answers["500"]

        async def is_gone() -> bool:
            return running.names() == before

        await eventually(is_gone, "the canary's end", within=20)
        assert 5 <= failed < sum(load.answers.values()) / 4
        assert 200 == (await ada.get(LIST)).status_code

    async def test_good_version_is_promoted(self, running: Running, ada: httpx.AsyncClient) -> None:
        """A healthy version is promoted step by step and takes over, without a failure."""
        before = {name: running.pid(name) for name in ("survey", "survey-2")}
        async with Load(ada, LIST, 40) as load:
            await running.amarre("canary", "start", "survey", "--weight", "50")

            async def is_over() -> bool:
                state = (await running.canary())["state"]
                assert "aborted" not in state, state
                return bool(state == "promoted")

            await eventually(is_over, "the promotion", within=90)

        assert [] == load.failures
        for name, pid in before.items():
            assert pid != running.pid(name)
        assert "survey-canary" not in running.names()

    async def test_version_that_never_gets_ready(self, running: Running) -> None:
        """A program that exits gives an error with the end of its log; nothing changes."""
        before = running.names()
        program = f"{sys.executable} -c \"raise SystemExit('no such setting')\""

        status, text = await running.try_amarre("canary", "start", "survey", "--command", program)

        assert 2 == status
        assert "no such setting" in text
        assert before == running.names()


class TestUnderLoad:
    async def test_restart(self, running: Running, ada: httpx.AsyncClient) -> None:
        """Services are replaced one after another under load: new processes, no failure."""
        before = {name: running.pid(name) for name in ("health", "gateway", "gateway-envoy")}
        async with Load(ada, "/api/v1/health/status", 40) as load:
            await running.amarre("restart", "health")
            await running.amarre("restart", "gateway")

        assert [] == load.failures
        assert 100 < load.answers["200"]
        for name, pid in before.items():
            assert pid != running.pid(name)

    async def test_pause(self, running: Running, ada: httpx.AsyncClient) -> None:
        """
        If every replica is stopped for so long that each counts as unhealthy, as on a machine whose
        disk is busy, calls wait; none is rejected.
        """
        async with Load(ada, LIST, 25) as load, running.admin("gateway-envoy") as admin:

            async def none_is_healthy() -> bool:
                found = await admin.counters("^cluster[.]survey[.]membership_healthy$")
                return not sum(found.values())

            with stopped(running.pid("survey"), running.pid("survey-2")):
                await eventually(none_is_healthy, "failed probes", within=5)
            await asyncio.sleep(1)

        assert [] == load.failures

    async def test_rotation_waits(self, running: Running) -> None:
        """The old root is not removed before a slow proxy trusts the new one."""
        bundle = Path(running.ready["pki"]["ca"])
        with stopped(running.pid("survey-envoy")):
            rotation = asyncio.create_task(running.amarre("certs", "rotate", "--root"))
            await asyncio.sleep(4.5)
            trusted = x509.load_pem_x509_certificates(bundle.read_bytes())
        said = await rotation

        assert 2 == len(trusted)
        assert "3 of 3" in said

    async def test_rotation(self, running: Running, ada: httpx.AsyncClient) -> None:
        """
        Leaf and root certificates are replaced repeatedly during 6,000 calls, 200 a second if the
        machine permits, without a failure; afterwards the trust bundle contains only the newest
        root.
        """
        bundle = Path(running.ready["pki"]["ca"])
        old = bundle.read_bytes()
        async with asyncio.timeout(300), Load(ada, LIST, 200) as load:
            while load.answers["200"] < 6_000:
                await running.amarre("certs", "rotate")
                await running.amarre("certs", "rotate", "--root")

        assert [] == load.failures
        assert 1 == len(x509.load_pem_x509_certificates(bundle.read_bytes()))
        assert old != bundle.read_bytes()
