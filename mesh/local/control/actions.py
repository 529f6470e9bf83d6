"""Control actions of a running mesh: faults, canaries, restarts, certificate rotation."""

import asyncio
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from mesh import topology
from mesh.contract import policy
from mesh.control import Action, ControlError, Progress
from mesh.local.control import direct_call
from mesh.local.control.audit_log import AuditLog
from mesh.local.control.canary import Canary
from mesh.local.control.faults import describe, parse_fault
from mesh.local.pki.certificate_authority import CaError, CertificateAuthority, issue_all
from mesh.local.pki.rotation import Installed, rotate
from mesh.local.processes.envoy import Admin, EnvoyError
from mesh.local.processes.fleet import Fleet
from mesh.local.processes.port_allocator import PortsExhaustedError
from mesh.local.processes.supervisor import StartFailedError
from mesh.render.envoy import Proxy
from mesh.topology import Kind

RENEW_SECONDS = 600.0
SETTLE_SECONDS = 10.0
CANARY_ANALYSIS = "canary analysis"
"""Who steps, promotes and aborts a canary automatically, in the audit log."""
HANDSHAKE_SECONDS = 1.0
"""How long handshakes that started without a proxy may still use the previous files."""


class ControlActions:
    """Executes control actions, one at a time where they would interfere with each other."""

    def __init__(self, fleet: Fleet, problems: Callable[[], list[str]] = list) -> None:
        """Act on *fleet*; *problems* returns the current problems of the mesh."""
        self._fleet = fleet
        self._problems = problems
        self.audit_log = AuditLog(fleet.plan.addresses.data_folder.state / "orders.jsonl")
        self._canaries: dict[str, Canary] = {}
        self._certificates = asyncio.Lock()

    def by_name(self) -> Mapping[str, Action]:
        """Return the actions by name."""
        return {
            "fault add": self._add_fault,
            "fault list": self._list_faults,
            "fault clear": self._clear_faults,
            "canary start": self._start_canary,
            "canary set": self._set_canary,
            "canary status": self._canary_status,
            "canary promote": self._promote_canary,
            "canary abort": self._abort_canary,
            "restart": self._restart,
            "status": self._status,
            "exits": self._exits,
            "call": partial(direct_call.report, self._fleet.plan.addresses.data_folder),
            "rotate": self._rotate,
            "audit log": self.audit_log.last,
        }

    async def close(self) -> None:
        """Stop the analysis of every canary."""
        for canary in self._canaries.values():
            await canary.close()

    async def _add_fault(self, arguments: dict[str, Any], progress: Progress) -> Any:
        self._need_proxies()
        fault = parse_fault(arguments)
        traffic = self._fleet.proxies.traffic
        others = tuple(one for one in traffic.faults if one.method != fault.method)
        self._fleet.proxies.apply(traffic=replace(traffic, faults=(*others, fault)))
        self._need_effect()
        return describe(fault)

    async def _list_faults(self, arguments: dict[str, Any], progress: Progress) -> Any:
        return [describe(fault) for fault in self._fleet.proxies.traffic.faults]

    async def _clear_faults(self, arguments: dict[str, Any], progress: Progress) -> Any:
        method = arguments.get("method") or ""
        traffic = self._fleet.proxies.traffic
        kept = tuple(f for f in traffic.faults if method and f.method != method)
        if method and len(kept) == len(traffic.faults):
            raise ControlError(f"{method} has no fault. `amarre fault list` shows all faults.")
        self._fleet.proxies.apply(traffic=replace(traffic, faults=kept))
        self._need_effect()
        return len(traffic.faults) - len(kept)

    async def _start_canary(self, arguments: dict[str, Any], progress: Progress) -> Any:
        self._need_proxies()
        service = self._service(arguments)
        present = self._canaries.get(service)
        if present is not None and present.active:
            raise ControlError(
                f"{service} already has a canary. Promote or abort it first: "
                f"amarre canary abort {service}"
            )
        command = tuple(shlex.split(arguments.get("command") or ""))
        if command and shutil.which(command[0]) is None:
            raise ControlError(
                f"--command: there is no such program: {command[0]!r}; nothing changed."
            )
        weight = _weight(arguments)
        canary = Canary(
            self._fleet,
            service,
            command=command or None,
            manual=bool(arguments.get("manual")),
            record=partial(self.audit_log.record, by=CANARY_ANALYSIS, fault=""),
        )
        # Registered here, so that it can be aborted while it starts.
        self._canaries[service] = canary
        progress(f"Starting {canary.name} …")
        await canary.start(weight)
        self._need_effect()
        return canary.status()

    async def _set_canary(self, arguments: dict[str, Any], progress: Progress) -> Any:
        canary = self._canary(arguments)
        canary.set(_weight(arguments))
        self._need_effect()
        return canary.status()

    async def _canary_status(self, arguments: dict[str, Any], progress: Progress) -> Any:
        wanted = arguments.get("service")
        return [c.status() for c in self._canaries.values() if wanted in {None, c.service}]

    async def _promote_canary(self, arguments: dict[str, Any], progress: Progress) -> Any:
        canary = self._canary(arguments)
        await canary.close()
        await canary.promote(progress)
        self._need_effect()
        return canary.status()

    async def _abort_canary(self, arguments: dict[str, Any], progress: Progress) -> Any:
        service = self._service(arguments)
        canary = self._canaries.get(service)
        if canary is None:
            raise ControlError(_no_canary(service))
        await canary.close()
        await canary.abort()
        self._need_effect()
        return canary.status()

    async def _restart(self, arguments: dict[str, Any], progress: Progress) -> Any:
        self._need_proxies()
        name = str(arguments.get("service"))
        names = self._fleet.instances(name) or [n for n in self._known() if n == name]
        if not names:
            raise ControlError(_unsuitable(name, "be restarted", self._known()))
        for one in names:
            progress(f"Replacing {one} …")
            try:
                await self._fleet.replace(one)
            except (EnvoyError, StartFailedError, PortsExhaustedError, OSError) as exc:
                raise ControlError(f"{one} was not replaced.\n{exc}") from exc
        return names

    async def _status(self, arguments: dict[str, Any], progress: Progress) -> Any:
        processes = [
            {"name": name, "kind": str(unit.kind), "pid": pid, "ready": ready}
            for name, unit, pid, ready in await self._fleet.report()
        ]
        canaries = [c.problem for c in self._canaries.values() if c.active and c.problem]
        return {"processes": processes, "problems": [*self._problems(), *canaries]}

    async def _exits(self, arguments: dict[str, Any], progress: Progress) -> Any:
        return [one._asdict() for one in self._fleet.supervisor.exits]

    async def _rotate(self, arguments: dict[str, Any], progress: Progress) -> Any:
        async with self._certificates:
            try:
                await rotate(
                    self._fleet.plan.addresses.data_folder,
                    root=bool(arguments.get("root")),
                    settled=self._settled,
                    progress=progress,
                )
            except (CaError, OSError) as exc:
                raise ControlError(f"The rotation is incomplete; run it again.\n{exc}") from exc

    async def keep_certificates_fresh(self) -> None:
        """Renew certificates past half their lifetime, until cancelled.

        Raises:
            CaError, OSError: They cannot be renewed; the background task is restarted.
        """
        data_folder = self._fleet.plan.addresses.data_folder
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            async with self._certificates:
                issue_all(CertificateAuthority.load_or_create(data_folder.ca), data_folder.certs)

    async def _settled(self) -> None:
        """Wait until every proxy reports the leaf and the roots installed for its workload.

        Only the proxy's own report counts: on a busy machine it may read its files seconds later.
        """
        proxies = self._fleet.running_proxies()
        if not proxies:
            await asyncio.sleep(HANDSHAKE_SECONDS)
        deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
        for proxy in proxies:
            wanted = Installed.read(self._fleet.plan.addresses.data_folder.certs / proxy.workload)
            async with Admin(proxy.admin) as admin:
                while not await _shows(admin, wanted):
                    if asyncio.get_running_loop().time() > deadline:
                        raise ControlError(_stuck(proxy))
                    await asyncio.sleep(0.05)

    def _need_proxies(self) -> None:
        if not self._fleet.running_proxies():
            raise ControlError("This mesh runs without proxies. Start it without --direct.")

    def _need_effect(self) -> None:
        """Say so if an action is accepted, but the proxies' files cannot be written now."""
        problems = self._fleet.proxies.problems()
        if problems:
            raise ControlError(
                f"The action is accepted, but not in effect yet. {problems[0]}. It takes effect "
                "once the file can be written; `amarre status` shows the problem until then."
            )

    def _known(self) -> list[str]:
        return [n for n, u in self._fleet.units.items() if u.kind is Kind.SERVICE]

    def _service(self, arguments: dict[str, Any]) -> str:
        name = str(arguments.get("service"))
        known = [service.name for service in policy.load().services]
        if name not in known:
            raise ControlError(_unsuitable(name, "have a canary", known))
        return name

    def _canary(self, arguments: dict[str, Any]) -> Canary:
        service = self._service(arguments)
        canary = self._canaries.get(service)
        if canary is None or not canary.active:
            raise ControlError(_no_canary(service))
        if canary.changing:
            raise ControlError(
                f"The canary of {service} is being started, promoted or aborted. Wait until this "
                f"is complete, or abort it: amarre canary abort {service}"
            )
        return canary


def _no_canary(service: str) -> str:
    return f"{service} has no canary. Start one with: amarre canary start {service}"


def _unsuitable(name: str, ability: str, able: list[str]) -> str:
    services = ", ".join(able)
    if name in (process.name for process in topology.PROCESSES):
        return f"{name} cannot {ability}. Services that can: {services}."
    return f"There is no service {name}. Services: {services}."


async def _shows(admin: Admin, wanted: Installed) -> bool:
    try:
        found = await admin.get("/certs")
    except EnvoyError:
        return False
    return any(
        wanted.leaf in _serials(entry, "cert_chain") and wanted.roots == _serials(entry, "ca_cert")
        for entry in found.get("certificates", [])
    )


def _serials(entry: dict[str, Any], of: str) -> set[str]:
    return {one["serial_number"].lstrip("0") for one in entry.get(of, [])}


def _stuck(proxy: Proxy) -> str:
    return (
        f"{proxy.name} did not pick up its new certificate; the rotation stopped. "
        "Restart it with `amarre restart` and rotate again."
    )


def _weight(arguments: dict[str, Any]) -> int:
    weight = arguments.get("weight")
    if not isinstance(weight, int) or not 0 <= weight <= 100:
        raise ControlError(f"The weight {weight} is not a percentage from 0 to 100.")
    return weight
