"""Conflicting inputs are rejected with the location."""

from dataclasses import replace

import pytest

from mesh import topology
from mesh.contract import policy
from mesh.contract.policy import Mesh
from mesh.render import deployment
from mesh.render.deployment import RenderError
from mesh.topology import Process

MESH = policy.load()


def changed(name: str, **fields: object) -> list[Process]:
    return [
        replace(p, **fields) if p.name == name else p  # type: ignore[arg-type]
        for p in topology.PROCESSES
    ]


@pytest.mark.parametrize(
    ("processes", "said"),
    [
        pytest.param(
            changed("survey", port=topology.AUTH),
            "port 3002 is used by survey (service) and auth (service)",
            id="two services on one port",
        ),
        pytest.param(
            changed("survey", metrics=52), "survey (/metrics) and auth (/metrics)", id="metrics"
        ),
        pytest.param(
            changed("survey", port=4),
            "port 3004 is used by the key set of auth and survey (service)",
            id="port of the key set",
        ),
        pytest.param(
            changed("survey", namespace="Amarre_Surveys"),
            "process 'survey': namespace 'Amarre_Surveys' is not a valid Kubernetes name",
            id="namespace",
        ),
        pytest.param(
            changed("gateway", identity="Gate.Way"),
            "process 'gateway': identity 'Gate.Way' is not a valid",
            id="identity",
        ),
        pytest.param(
            changed("gateway", identity="edge"), "'edge' is reserved by the mesh", id="reserved"
        ),
        pytest.param(
            changed("gateway", identity="auth"),
            "2 processes have the identity 'auth'",
            id="two of one name",
        ),
        pytest.param(
            [p for p in topology.PROCESSES if p.name != "survey"],
            "the contract of 'survey' has no process",
            id="contract without process",
        ),
        pytest.param(
            [p for p in topology.PROCESSES if p.name != "gateway"],
            "lets 'gateway' call, but no process has that identity",
            id="caller without process",
        ),
    ],
)
def test_refused(processes: list[Process], said: str) -> None:
    """
    Invalid input is rejected; the message names the file and the conflict.
    """
    with pytest.raises(RenderError) as ei:
        deployment.load(MESH, processes)

    assert said in str(ei.value)
    assert str(ei.value).startswith("mesh/topology.py: ")


def test_process_without_contract() -> None:
    """
    A gRPC process without a contract is rejected.
    """
    with pytest.raises(RenderError, match="process 'survey' serves gRPC, but has no contract"):
        deployment.load(Mesh(MESH.services[:2]))
