"""Every rpc of every contract has an implementation."""

from importlib import import_module

import pytest

from mesh import topology
from mesh.contract import policy
from mesh.contract.policy import Service


def missing(service: Service, implementation: type) -> set[str]:
    """The rpcs that *implementation* inherits from the generated base class."""
    written = [vars(c) for c in implementation.__mro__ if not c.__module__.startswith("amarre.")]
    return {m.name for m in service.methods if not any(m.name in names for names in written)}


@pytest.mark.parametrize("service", policy.load().services, ids=lambda service: str(service.name))
def test_every_rpc(service: Service) -> None:
    """A service implements each rpc of its contract."""
    module = import_module(f"{topology.process(service.name).module}.service")

    assert set() == missing(service, getattr(module, service.descriptor.name))


def test_missing_one() -> None:
    """A missing rpc is reported by name."""
    service = policy.load().service("health")
    generated = import_module("amarre.health.v1.health_service_pb2_grpc").HealthServiceServicer

    class Half(generated):  # type: ignore[misc, valid-type]
        async def GetStatus(self) -> None: ...

    assert {m.name for m in service.methods} - {"GetStatus"} == missing(service, Half)
