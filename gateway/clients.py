"""Typed stubs, one per service."""

from dataclasses import dataclass
from typing import Any

import grpc
from amarre.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from amarre.health.v1.health_service_pb2_grpc import HealthServiceStub
from amarre.survey.v1.survey_service_pb2_grpc import SurveyServiceStub

from mesh.chassis.channel import channel
from mesh.chassis.config import MeshSettings
from mesh.contract.policy import SERVICES, Method


@dataclass(frozen=True)
class Clients:
    """Stubs of the services that the gateway calls."""

    channels: tuple[grpc.aio.Channel, ...]
    auth: Any
    survey: Any
    health: Any

    @classmethod
    def connect(cls, settings: MeshSettings) -> "Clients":
        """Create a channel to each service; connections are opened by the first call.

        Raises:
            SvidFilesError: The SVID of this process cannot be read.
            KeyError: ``AMARRE_PEERS`` lacks a service.
        """
        channels = {name: channel(name, settings) for name in SERVICES}
        return cls(
            channels=tuple(channels.values()),
            auth=AuthServiceStub(channels["auth"]),
            survey=SurveyServiceStub(channels["survey"]),
            health=HealthServiceStub(channels["health"]),
        )

    def of(self, method: Method) -> Any:
        """Return the stub method for *method*."""
        return getattr(getattr(self, method.service), method.name)

    async def close(self) -> None:
        """Close every channel."""
        for live in self.channels:
            await live.close()
