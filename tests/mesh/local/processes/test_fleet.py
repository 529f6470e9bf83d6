"""The instances of a mesh: what they wait for, and how they are replaced."""

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mesh import topology
from mesh.contract import policy
from mesh.local.data_folder import DataFolder
from mesh.local.processes import fleet as module
from mesh.local.processes.fleet import Fleet, verifies_tokens
from mesh.local.processes.plan import Options, Plan
from mesh.local.processes.port_allocator import PortsExhaustedError
from tests.live import free_base

COMMAND = ("sleep", "60")


def service(name: str, *, session: bool) -> Any:
    """A service whose only rpc requires a session, or not."""
    return SimpleNamespace(name=name, methods=[SimpleNamespace(needs_session=session)])


@pytest.mark.parametrize(("workload", "expected"), [("plain", False), ("signed", True)])
def test_key_set_is_awaited_only_where_tokens_are_verified(
    monkeypatch: pytest.MonkeyPatch, workload: str, expected: bool
) -> None:
    """
    The Envoy of a service without an rpc that requires a session never fetches the keys of Auth, so
    nothing waits for them; any other Envoy is ready only once it has them.
    """
    services = [service("plain", session=False), service("signed", session=True)]
    monkeypatch.setattr(policy, "load", lambda: SimpleNamespace(services=services))
    proxy: Any = SimpleNamespace(key_set="unix:/run/keys.sock", workload=workload)

    assert expected == verifies_tokens(proxy)


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    """A fleet without proxies whose processes are ready at once."""

    async def ready() -> bool:
        return True

    monkeypatch.setattr(module, "probe", lambda *_: ready)
    fleet = Fleet(Plan(DataFolder(tmp_path), Options(free_base(), direct=True)), lambda: None)
    yield fleet
    await fleet.stop()


def test_removed_files_are_created_again(tmp_path: Path) -> None:
    """Before a restart, the folders and proxy files that were removed exist again; sockets stay."""
    data_folder = DataFolder(tmp_path / "data")
    data_folder.prepare()
    fleet = Fleet(Plan(data_folder, Options()), lambda: None)
    fleet.units = {unit.name: unit for unit in fleet.plan.units}
    folder = data_folder.sockets / "survey"
    fleet.restore("survey")
    (folder / "app.sock").touch()
    shutil.rmtree(data_folder.envoy)
    fleet.restore("survey-envoy")
    assert (folder / "app.sock").exists()
    assert list(data_folder.envoy.glob("survey-envoy.*/envoy.yaml"))

    shutil.rmtree(data_folder.data)
    fleet.restore("survey")

    assert folder.is_dir()
    assert data_folder.state.is_dir()
    fleet.logs.close()


def test_sockets_of_a_removed_instance(tmp_path: Path) -> None:
    """When an instance is removed, nothing of its proxy is left, and others keep their sockets."""
    folder = DataFolder(tmp_path)
    fleet = Fleet(Plan(folder, Options()), lambda: None)
    fleet.units = {unit.name: unit for unit in fleet.plan.units}
    for name in ("auth", "survey"):
        fleet.restore(name)
    proxy = fleet.units["survey-envoy"].proxy
    assert proxy is not None

    fleet.proxies.remove(proxy)

    left = [path.name for parent in (folder.sockets, folder.envoy) for path in parent.iterdir()]
    assert ["auth", "auth-envoy.auth"] == left
    fleet.logs.close()


async def test_ports_of_other_programs(fleet: Fleet) -> None:
    """
    Canaries and successors skip spare ports that another program uses, and the port of a replica
    that was replaced; if none is left, the error names them.
    """
    survey, address = topology.process("survey"), fleet.plan.addresses.port
    (spare,), (main,) = topology.REPLICA_METRICS, topology.REPLICAS

    with contextlib.ExitStack() as programs:
        for port in (spare[0], main[1]):
            programs.enter_context(socket.create_server(("127.0.0.1", address(port))))
        await fleet.add(survey, "survey-canary", 1, command=COMMAND)
        found = fleet.units["survey-canary"].ports
        for port in spare[1:]:
            if found is not None and port != found.metrics:
                programs.enter_context(socket.create_server(("127.0.0.1", address(port))))
        with pytest.raises(PortsExhaustedError, match=str(address(spare[0]))):
            await fleet.add(survey, "survey-2", 2, command=COMMAND)

    assert found is not None
    assert spare[2] == found.metrics


async def test_instances_of_a_service_change_one_after_another(fleet: Fleet) -> None:
    """Replacements, canaries and removals of one service at once leave what each of them says."""
    survey = topology.process("survey")
    await fleet.add(survey, "survey", 1, command=COMMAND)
    first = fleet.supervisor.children["survey"].pid

    await asyncio.gather(
        fleet.replace("survey", command=COMMAND),
        fleet.replace("survey"),
        fleet.add(survey, "survey-canary", 1, command=COMMAND),
        fleet.replace("survey"),
    )
    await asyncio.gather(fleet.replace("survey"), fleet.remove("survey-canary"))

    assert ["survey"] == list(fleet.units) == list(fleet.supervisor.children)
    assert fleet.supervisor.children["survey"].pid not in {0, first}
