"""Readiness probes of the runner."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from amarre.health.v1 import health_service_pb2_grpc as rpc

from mesh.chassis.testing import served
from mesh.local.processes.plan import Unit
from mesh.local.processes.readiness import probe
from mesh.topology import Probe


def register(server: Any) -> None:
    """Serve Health without methods: a probe only calls gRPC health."""
    rpc.add_HealthServiceServicer_to_server(rpc.HealthServiceServicer(), server)


async def test_proxy_variables(svids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    `amarre up --direct` becomes ready whatever proxy the environment names (as in test_channel).
    """
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    async with served(register, svids / "health") as port:
        unit = SimpleNamespace(
            proxy=None,
            probe=Probe.GRPC,
            probe_target=f"127.0.0.1:{port}",
            process=SimpleNamespace(probe_path="", identity="health"),
        )
        assert await probe(cast(Unit, unit), svids)()
