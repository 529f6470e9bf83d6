"""Control actions: arguments are parsed, and invalid ones rejected with advice."""

import asyncio
import os
import re
import socket
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mesh import control, topology
from mesh.control import ControlError, Progress, serve_actions
from mesh.local.control.actions import ControlActions
from mesh.local.control.client import send_action
from mesh.local.control.faults import describe, parse_fault
from mesh.local.data_folder import DataFolder
from mesh.local.processes.port_allocator import PortAllocator, PortsExhaustedError
from mesh.render.envoy import Traffic
from tests.mesh.render import addition


def test_fault() -> None:
    """A fault is parsed and described in the command's syntax."""
    fault = parse_fault(
        {"method": "survey.ListRequests", "delay_ms": 300, "abort": "unavailable", "percent": 50}
    )
    assert timedelta(milliseconds=300) == fault.delay
    assert 14 == fault.abort
    expected = "survey.ListRequests: 50 % delayed by 300 ms and aborted with UNAVAILABLE"
    assert expected == describe(fault)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"method": "survey.Nothing", "delay_ms": 1}, "survey.ListRequests"),
        ({"method": "survey.ListRequests"}, "needs a delay .300ms."),
        ({"method": "survey.ListRequests", "abort": "OK"}, "UNAVAILABLE"),
        ({"method": "survey.ListRequests", "delay_ms": 1, "percent": 0}, "--percent"),
        ({"method": "survey.ListRequests", "delay_ms": 1, "percent": 101}, "--percent"),
        ({"method": "survey.ListRequests", "delay_ms": 1, "percent": 0.00001}, "from 0.0001"),
        ({"method": "survey.ListRequests", "delay_ms": 0.0001}, "--delay"),
        ({"method": "survey.ListRequests", "delay_ms": 3_600_001}, "--delay"),
        ({"method": "survey.ListRequests", "delay_ms": float("inf")}, "--delay"),
    ],
)
def test_impossible_faults(asked: dict[str, Any], said: str) -> None:
    """Impossible values are rejected with the valid ones."""
    with pytest.raises(ControlError, match=said):
        parse_fault(asked)


async def test_control(tmp_path: Path) -> None:
    """An action runs, reports its progress, and returns its error."""
    data_folder = DataFolder(tmp_path)
    data_folder.sockets.mkdir()
    data_folder.ready.write_text(f'{{"processes": [{{"pid": {os.getpid()}}}]}}')

    async def greet(asked: dict[str, Any], tell: Progress) -> str:
        tell("thinking")
        if not asked.get("name"):
            raise ControlError("Say to whom.")
        return f"hello {asked['name']}"

    progress: list[str] = []
    async with serve_actions(data_folder.control, {"greet": greet}):
        answer = await send_action(data_folder, "greet", progress.append, name="Ada")
        with pytest.raises(ControlError, match="to whom"):
            await send_action(data_folder, "greet", progress.append)
        mode = data_folder.control.stat().st_mode & 0o777

    assert "hello Ada" == answer
    assert ["thinking", "thinking"] == progress
    assert 0o600 == mode


async def test_runner_that_does_not_respond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client does not wait for a runner that is suspended, and says so."""
    monkeypatch.setattr(control, "ACCEPT_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as suspended:
        suspended.bind(str(tmp_path / "control.sock"))
        suspended.listen()
        with pytest.raises(ControlError, match="does not respond"):
            async with asyncio.timeout(5):
                await control.send_action(tmp_path / "control.sock", "greet", by="Ada")


async def test_sender_that_has_left(tmp_path: Path) -> None:
    """An action whose sender has given up before it was accepted is not carried out."""
    path = tmp_path / "control.sock"
    greeted: list[str] = []

    async def greet(asked: dict[str, Any], tell: Progress) -> None:
        greeted.append(asked["name"])

    async with serve_actions(path, {"greet": greet}):
        with socket.socket(socket.AF_UNIX) as left:
            left.connect(str(path))
            left.sendall(b'{"action": "greet", "name": "Eve"}\n')
        await control.send_action(path, "greet", by="Ada", name="Ada")

    assert ["Ada"] == greeted


async def test_removed_socket(tmp_path: Path) -> None:
    """A control socket that was removed or replaced is created again, for the same user only."""
    path = tmp_path / "control.sock"

    async def greet(asked: dict[str, Any], tell: Progress) -> str:
        return "hello"

    async with serve_actions(path, {"greet": greet}) as server:
        for spoil in (lambda: None, path.unlink, lambda: path.rename(tmp_path / "moved")):
            spoil()
            await server.listen()
            assert "hello" == await control.send_action(path, "greet", by="Ada")
        mode = path.stat().st_mode & 0o777

    assert 0o600 == mode


def test_port_allocation() -> None:
    """The first instance gets its own ports, others distinct spare ones; then an error."""
    port_allocator, survey = PortAllocator(), topology.process("survey")
    first = port_allocator.take(survey)
    spare = [port_allocator.take(survey) for _ in topology.REPLICAS[0]]

    assert (survey.port, survey.metrics, survey.admin) == (first.main, first.metrics, first.admin)
    ports = [port for ports in (first, *spare) for port in (ports.main, ports.metrics, ports.admin)]
    assert len(ports) == len(set(ports))
    with pytest.raises(PortsExhaustedError, match="replicas"):
        port_allocator.take(survey)
    port_allocator.release(first)
    assert first == port_allocator.take(survey)


def test_declared_ports_are_not_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas get no port that a process of the topology declares."""
    ranges = (topology.REPLICAS, topology.REPLICA_METRICS, topology.REPLICA_ADMIN)
    offsets = zip(
        ("port", "metrics", "admin"), (ports[0].start + 1 for ports in ranges), strict=True
    )
    added = replace(addition.PROCESS, **dict(offsets))  # type: ignore[arg-type]
    monkeypatch.setattr(topology, "PROCESSES", (*topology.PROCESSES, added))
    port_allocator = PortAllocator()
    spare = [port_allocator.take(added, own=False) for _ in topology.REPLICAS[0][1:]]

    ports = {port for ports in spare for port in (ports.main, ports.metrics, ports.admin)}
    assert not ports & set(topology.declared_ports())


@pytest.mark.parametrize(
    ("action", "service", "message"),
    [
        ("canary start", "gateway", "gateway cannot have a canary. Services that can: auth, he"),
        ("canary start", "nobody", "There is no service nobody. Services: auth, health, survey."),
        ("restart", "redcap", "redcap cannot be restarted. Services that can: gateway, survey."),
        ("restart", "nobody", "There is no service nobody. Services: gateway, survey."),
    ],
)
async def test_unsuitable_processes(
    action: str, service: str, message: str, tmp_path: Path
) -> None:
    """An action on a process that does not support it names those that do."""
    services = {name: SimpleNamespace(kind=topology.Kind.SERVICE) for name in ("gateway", "survey")}
    fleet: Any = SimpleNamespace(
        plan=SimpleNamespace(addresses=SimpleNamespace(data_folder=DataFolder(tmp_path))),
        running_proxies=lambda: ["survey"],
        units=services | {"redcap": SimpleNamespace(kind=topology.Kind.BACKEND)},
        instances=lambda _: [],
    )

    with pytest.raises(ControlError, match=f"^{re.escape(message)}"):
        await ControlActions(fleet).by_name()[action]({"service": service}, lambda _: None)


class FullDisk:
    """The proxies of a mesh whose files cannot be written."""

    traffic = Traffic()

    def apply(self, *, traffic: Traffic) -> None:
        """Keep *traffic* for later."""
        self.traffic = traffic

    def problems(self) -> list[str]:
        """Return what cannot be written."""
        return ["The configuration of survey-envoy is out of date: No space left on device"]


async def test_not_in_effect_yet(tmp_path: Path) -> None:
    """
    An action whose files cannot be written is accepted, and its answer says that it is not in
    effect; before, it claimed to be.
    """
    proxies = FullDisk()
    plan = SimpleNamespace(addresses=SimpleNamespace(data_folder=DataFolder(tmp_path)))
    fleet: Any = SimpleNamespace(plan=plan, proxies=proxies, running_proxies=lambda: ["survey"])
    actions = ControlActions(fleet).by_name()

    for name, arguments, left in (
        ("fault add", {"method": "survey.ListRequests", "delay_ms": 5}, 1),
        ("fault clear", {}, 0),
    ):
        with pytest.raises(ControlError, match=r"not in effect yet.*survey-envoy is out of date"):
            await actions[name](arguments, lambda _: None)
        assert left == len(proxies.traffic.faults)
