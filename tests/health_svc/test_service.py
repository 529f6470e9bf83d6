"""HealthService over real mTLS."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from amarre.health.v1 import health_pb2 as pb
from amarre.health.v1 import health_service_pb2 as rpc
from amarre.health.v1 import health_service_pb2_grpc as rpc_grpc

from health_svc import health_checks
from health_svc.ports import Check
from health_svc.probe_limits import SharedProber
from health_svc.probes import Prober
from health_svc.service import HealthService
from health_svc.status import Board
from mesh.chassis.call import User
from mesh.chassis.channel import channel
from mesh.chassis.config import MeshSettings
from mesh.chassis.errors import from_rpc_error, unpack
from mesh.chassis.identity import SpiffeId
from mesh.chassis.testing import connected, free_port, served
from mesh.chassis.tokens import SigningKey, mint
from tests.health_svc.fakes import CERTIFICATE, FakeNetwork

GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")
ONLINE, OFFLINE, PRIVATE = "portal.example.org", "down.example.org", "inside.example.org"
ADDRESS = "93.184.216.34"
KEY = SigningKey.generate()
Stub: TypeAlias = "rpc_grpc.HealthServiceAsyncStub"


def signed_in() -> tuple[tuple[str, str], ...]:
    token, _ = mint(KEY, User("u1", "s1", "ada@example.org"), audience="health", caller=GATEWAY)
    return (("authorization", f"Bearer {token}"),)


async def well() -> None:
    """The check of a healthy part."""


@contextlib.asynccontextmanager
async def health(
    svids: Path, checks: dict[str, Check], *, caller: str = "gateway"
) -> AsyncIterator[Stub]:
    """Serve Health with an in-memory network; yields a stub for *caller*."""
    network = FakeNetwork(
        {ONLINE: (ADDRESS,), OFFLINE: ("93.184.216.35",), PRIVATE: ("10.0.0.1",)},
        alive=frozenset({ADDRESS}),
    )
    servicer = HealthService(
        SharedProber(Prober(network, frozenset(network.names))),
        Board(checks, holds=timedelta(milliseconds=20)),
        heartbeat=timedelta(milliseconds=50),
    )
    async with (
        served(
            lambda to: rpc_grpc.add_HealthServiceServicer_to_server(servicer, to),
            svids / "health",
            audience="health",
            key=KEY,
        ) as port,
        connected("health", port, svids / caller, rpc_grpc.HealthServiceStub) as stub,
    ):
        yield stub


@pytest.fixture
async def stub(svids: Path) -> AsyncIterator[Stub]:
    async with health(svids, {"auth": well}) as found:
        yield found


class TestCheckHost:
    async def test_online(self, stub: Stub) -> None:
        """An online host has every field of the probe; the default timeout is 3 s."""
        answer = await stub.CheckHost(rpc.CheckHostRequest(host=ONLINE), metadata=signed_in())

        probe = answer.probe
        assert probe.online
        assert (ONLINE, 443, 3000) == (probe.host, probe.port, probe.timeout_ms)
        assert probe.tcp.HasField("latency_ms")
        assert not probe.tcp.HasField("error")
        assert ("TLSv1.3", "h2") == (probe.tls.protocol, probe.tls.alpn_protocol)
        assert CERTIFICATE.subject_cn == probe.tls.cert.subject_cn
        assert CERTIFICATE.valid_to.timestamp() == probe.tls.cert.valid_to_time.seconds

    async def test_offline(self, stub: Stub) -> None:
        """An offline host is the error OFFLINE with the probe in its details."""
        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await stub.CheckHost(
                rpc.CheckHostRequest(host=OFFLINE, timeout_ms=100), metadata=signed_in()
            )

        error = from_rpc_error(ei.value)
        probe = unpack(error.status, pb.HostProbe)
        assert ("OFFLINE", 503) == (error.contract.name, error.contract.http)
        assert probe is not None
        assert not probe.online
        assert "connection refused" == probe.tcp.error
        assert 100 == probe.timeout_ms

    @pytest.mark.parametrize(
        ("request_", "reason"),
        [
            (rpc.CheckHostRequest(), "INVALID_PARAMETERS"),
            (rpc.CheckHostRequest(host=ONLINE, timeout_ms=99), "INVALID_PARAMETERS"),
            (rpc.CheckHostRequest(host=ONLINE, timeout_ms=30001), "INVALID_PARAMETERS"),
            (rpc.CheckHostRequest(host="https://x.org"), "INVALID_PARAMETERS"),
            (rpc.CheckHostRequest(host=ONLINE, port=22), "INVALID_PORT"),
            (rpc.CheckHostRequest(host="other.example.org"), "HOST_NOT_ALLOWED"),
            (rpc.CheckHostRequest(host=PRIVATE), "HOST_NOT_ALLOWED"),
        ],
        ids=["no host", "short", "long", "url", "port", "not listed", "private"],
    )
    async def test_refused(self, stub: Stub, request_: rpc.CheckHostRequest, reason: str) -> None:
        """A host that may not be probed is 400 with the reason of the contract."""
        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await stub.CheckHost(request_, metadata=signed_in())

        error = from_rpc_error(ei.value)
        assert (reason, 400) == (error.contract.name, error.contract.http)

    async def test_signed_out(self, stub: Stub) -> None:
        """Probing requires a signed-in user."""
        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await stub.CheckHost(rpc.CheckHostRequest(host=ONLINE))

        assert grpc.StatusCode.UNAUTHENTICATED == ei.value.code()

    async def test_other_caller(self, svids: Path) -> None:
        """A workload that the contract does not name is rejected."""
        async with health(svids, {}, caller="survey") as stub:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await stub.GetStatus(rpc.GetStatusRequest())

        assert grpc.StatusCode.PERMISSION_DENIED == ei.value.code()


class TestGetStatus:
    async def test_unavailable(self, svids: Path) -> None:
        """An unavailable service and backend make the mesh unhealthy, each with a message."""
        settings = MeshSettings(
            peers={"auth": f"127.0.0.1:{free_port()}"}, svid_dir=svids / "health"
        )
        async with (
            health_checks.http_client() as client,
            channel("auth", settings) as unavailable,
        ):
            checks = {
                "auth": health_checks.service(unavailable),
                "redcap": health_checks.backend(client, f"http://127.0.0.1:{free_port()}/"),
            }
            async with health(svids, checks) as stub:
                status = (await stub.GetStatus(rpc.GetStatusRequest())).status

        assert pb.HEALTH_STATUS_UNHEALTHY == status.status
        assert ["auth", "redcap"] == [part.name for part in status.services]
        assert ["Does not respond (UNAVAILABLE).", "Does not respond (ConnectError)."] == [
            part.message for part in status.services
        ]

    async def test_serving(self, svids: Path) -> None:
        """The caller identity of Health may call the health check of any service."""
        servicer = HealthService(SharedProber(Prober(FakeNetwork({}), frozenset())), Board({}))
        async with served(
            lambda to: rpc_grpc.add_HealthServiceServicer_to_server(servicer, to),
            svids / "survey",
        ) as port:
            settings = MeshSettings(
                peers={"survey": f"127.0.0.1:{port}"}, svid_dir=svids / "health"
            )
            async with (
                channel("survey", settings) as live,
                health(svids, {"survey": health_checks.service(live)}) as stub,
                asyncio.timeout(5),
            ):
                healthy = False
                while not healthy:  # The server announces itself after its first own check.
                    status = (await stub.GetStatus(rpc.GetStatusRequest())).status
                    healthy = status.status == pb.HEALTH_STATUS_HEALTHY

        assert "" == status.services[0].message
        assert status.uptime_seconds >= 0


class TestWatchStatus:
    async def test_change(self, svids: Path) -> None:
        """The stream sends the state, then the change, with heartbeats in between."""
        down = asyncio.Event()

        async def check() -> None:
            if down.is_set():
                raise ConnectionError

        async with health(svids, {"auth": check}) as stub, asyncio.timeout(5):
            stream = stub.WatchStatus(rpc.WatchStatusRequest())
            events = aiter(stream)
            first = await anext(events)
            beat = await anext(events)
            down.set()
            changed = await anext(events)
            while not changed.event_id:
                changed = await anext(events)
            stream.cancel()

        assert pb.HEALTH_STATUS_HEALTHY == first.status.status
        assert not beat.event_id
        assert not beat.HasField("status")
        assert pb.HEALTH_STATUS_UNHEALTHY == changed.status.status

    async def test_ends_well(self, stub: Stub) -> None:
        """The stream ends shortly before its deadline, without an error."""
        stream = stub.WatchStatus(rpc.WatchStatusRequest(), timeout=1)

        assert 1 <= len([event async for event in stream])
        assert grpc.StatusCode.OK == await stream.code()
