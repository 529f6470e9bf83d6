"""A gateway in front of fake services over real mTLS, called in process."""

import functools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from amarre.auth.v1.auth_service_pb2_grpc import add_AuthServiceServicer_to_server
from amarre.health.v1.health_service_pb2_grpc import add_HealthServiceServicer_to_server
from amarre.survey.v1.survey_service_pb2_grpc import add_SurveyServiceServicer_to_server

from gateway.app import Gateway, build
from gateway.clients import Clients
from gateway.config import GatewaySettings
from gateway.sessions.cookies import NAME
from mesh.chassis.testing import served
from mesh.chassis.tokens import SigningKey
from tests.gateway.fakes import FakeAuth, FakeHealth, FakeSurvey

ORIGIN = "https://localhost:3443"


@dataclass
class World:
    """A gateway, its fake services and a client."""

    auth: FakeAuth
    survey: FakeSurvey
    health: FakeHealth
    settings: GatewaySettings
    gateway: Gateway
    http: httpx.AsyncClient
    """A client that sends Sec-Fetch-Site: same-origin."""

    def sign_in(self, user_id: str = "ada", **how: Any) -> str:
        """Sign the client in, with the session options *how*; returns the secret."""
        secret = self.auth.open(user_id=user_id, email=f"{user_id}@example.org", **how)
        self.http.headers["cookie"] = f"{NAME}={secret}"
        return secret


@pytest.fixture
async def world(svids: Path) -> AsyncIterator[World]:
    """A gateway and its fake services."""
    key = SigningKey.generate()
    auth, survey, health = FakeAuth(key), FakeSurvey(), FakeHealth()
    async with AsyncExitStack() as stack:
        peers = {}
        services: tuple[tuple[str, Any, object], ...] = (
            ("auth", add_AuthServiceServicer_to_server, auth),
            ("survey", add_SurveyServiceServicer_to_server, survey),
            ("health", add_HealthServiceServicer_to_server, health),
        )
        for name, add, fake in services:
            register = functools.partial(add, fake)
            serving = served(register, svids / name, audience=name, key=key)
            peers[name] = f"127.0.0.1:{await stack.enter_async_context(serving)}"
        settings = GatewaySettings(
            peers=peers,
            svid_dir=svids / "gateway",
            gateway_origins=ORIGIN,
        )
        clients = Clients.connect(settings)
        stack.push_async_callback(clients.close)
        gateway = build(settings, clients)
        http = await stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(gateway.app),
                base_url=ORIGIN,
                headers={"sec-fetch-site": "same-origin"},
            )
        )
        yield World(auth, survey, health, settings, gateway, http)
