"""Health, reflection, and what a server refuses at start."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from amarre.survey.v1 import survey_service_pb2_grpc as rpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

from mesh.chassis.server import Server
from mesh.chassis.telemetry import names
from mesh.chassis.testing import connected, served
from mesh.contract.faults import PolicyError
from mesh.contract.policy import Mesh
from tests.mesh.chassis.server.surveys import Surveys, make_surveys


async def test_nothing_in_flight(port: int) -> None:
    """Before its first call, a server reports 0 calls in flight instead of no value."""
    labels = {"service": "survey"}
    assert 0 == REGISTRY.get_sample_value(names.RPC_SERVER_IN_FLIGHT, labels)


class TestBuiltIn:
    async def test_health_for_any_workload(self, port: int, svids: Path) -> None:
        """Any workload may call health checks."""

        async def status() -> int:
            asking = connected("survey", port, svids / "auth", health_pb2_grpc.HealthStub)
            async with asking as stub:
                request = health_pb2.HealthCheckRequest(service="amarre.survey.v1.SurveyService")
                answer = await stub.Check(request)
                return int(answer.status)

        async with asyncio.timeout(5):
            while await status() != health_pb2.HealthCheckResponse.SERVING:
                await asyncio.sleep(0.05)

    @pytest.mark.parametrize("kind", ["checks", "watched"])
    async def test_dependency_unavailable(self, kind: str, svids: Path) -> None:
        """A failing check is measured; only one that is not merely watched stops service."""

        async def fails() -> bool:
            raise OSError

        checks: Any = {kind: {f"the {kind}": fails}}
        register = partial(rpc.add_SurveyServiceServicer_to_server, Surveys())
        expected = {"checks": health_pb2.HealthCheckResponse.NOT_SERVING}
        async with (
            served(register, svids / "survey", **checks) as port,
            connected("survey", port, svids / "auth", health_pb2_grpc.HealthStub) as stub,
            asyncio.timeout(5),
        ):
            labels = {"dependency": f"the {kind}"}
            while REGISTRY.get_sample_value(names.DEPENDENCY_UP, labels) is None:
                await asyncio.sleep(0.02)
            wanted = expected.get(kind, health_pb2.HealthCheckResponse.SERVING)
            while (await stub.Check(health_pb2.HealthCheckRequest())).status != wanted:
                await asyncio.sleep(0.02)

            assert 0 == REGISTRY.get_sample_value(names.DEPENDENCY_UP, labels)

    @pytest.mark.parametrize(("name", "allowed"), [("operator", True), ("gateway", False)])
    async def test_reflection(self, port: int, svids: Path, name: str, allowed: bool) -> None:
        """Reflection is only for the operator identity."""
        from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

        async def ask(stub: Any) -> list[str]:
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            async for answer in stub.ServerReflectionInfo(iter([request])):
                return [service.name for service in answer.list_services_response.service]
            return []

        async def silence() -> AsyncIterator[Any]:
            # A write that meets the refusal fails within gRPC, at times.
            await asyncio.Event().wait()
            yield

        stub = reflection_pb2_grpc.ServerReflectionStub
        async with connected("survey", port, svids / name, stub) as reflection:
            if allowed:
                assert "amarre.survey.v1.SurveyService" in await ask(reflection)
            else:
                refused = reflection.ServerReflectionInfo(silence())
                assert grpc.StatusCode.PERMISSION_DENIED == await refused.code()


class TestStart:
    def test_method_without_policy(self, svids: Path) -> None:
        """A method without a policy is rejected at startup, by name."""

        async def build() -> None:
            from mesh.chassis.config import MeshSettings

            settings = MeshSettings(listen="unix:unused.sock", transport="sidecar")
            Server(
                settings,
                lambda server: rpc.add_SurveyServiceServicer_to_server(make_surveys(), server),
                mesh=Mesh(()),
            )

        with pytest.raises(PolicyError, match=r"AM001 amarre\.survey\.v1\.SurveyService\.GetPdf"):
            asyncio.run(build())
