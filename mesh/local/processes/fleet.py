"""
The instances of a running mesh, each a process with its Envoy: start, replacement, stop.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

from mesh.contract import policy
from mesh.local.processes import envoy, handover
from mesh.local.processes.envoy import Admin, EnvoyError
from mesh.local.processes.envoy_config import EnvoyConfig
from mesh.local.processes.fork_server import ForkServer
from mesh.local.processes.log_files import LogFiles
from mesh.local.processes.plan import Plan, Unit
from mesh.local.processes.port_allocator import is_free
from mesh.local.processes.readiness import probe
from mesh.local.processes.supervisor import Child, StartFailedError, Supervisor
from mesh.render.envoy import Proxy
from mesh.topology import Kind, Process, clients_of

COMPLETE_SECONDS = 20.0
_POLL_SECONDS = 0.03
_SUCCESSOR = "~"
_KEYS_FETCHED = "jwks_fetch_success"


class Fleet:
    """The running instances of a mesh, by name."""

    def __init__(
        self, plan: Plan, on_change: Callable[[], None], forks: ForkServer | None = None
    ) -> None:
        """
        Prepare to run the units of a plan.

        Args:
            plan: The plan of the mesh.
            on_change: Called whenever a process was replaced.
            forks: Starts the mesh's Python processes; None: each is a new interpreter.
        """
        self.plan = plan
        self.units: dict[str, Unit] = {}
        self.proxies = EnvoyConfig()
        self.supervisor = Supervisor(on_change)
        self.logs = LogFiles()
        self.forks = forks
        self._on_change = on_change
        self._changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Held while an instance of a service is started, replaced or stopped, by service."""

    async def start(self) -> None:
        """Start every unit of the plan; proxies first and one at a time, because starting them
        together with everything else would slow all of them down.

        Raises:
            EnvoyError: Envoy rejects its files.
            StartFailedError: A unit did not become ready.
        """
        units = self.plan.units
        self.units = {unit.name: unit for unit in units}
        self.proxies.endpoints = self.plan.endpoints()
        proxies = [unit for unit in units if unit.proxy is not None]
        await self.proxies.prepare([unit.proxy for unit in proxies if unit.proxy])
        for unit in proxies:
            await self._start_proxies([self._child(unit)])
        others = [unit for unit in units if unit.proxy is None]
        await self.supervisor.start([self._child(unit) for unit in others])
        await asyncio.gather(*(self._complete(unit) for unit in proxies))

    async def stop(self) -> None:
        """Stop everything, callers before callees."""

        def those(kind: Kind, *, gateway: bool) -> list[str]:
            return [
                name
                for name, unit in self.units.items()
                if unit.kind is kind and (unit.process.name == "gateway") is gateway
            ]

        # A proxy stops after its process, whose last calls go through it.
        waves = [
            those(Kind.SERVICE, gateway=True),
            those(Kind.PROXY, gateway=True),
            those(Kind.SERVICE, gateway=False),
            those(Kind.PROXY, gateway=False),
        ]
        await self.supervisor.stop(waves)
        if self.forks is not None:
            self.forks.stop()
        await asyncio.to_thread(self.logs.close)

    def problems(self) -> list[str]:
        """Return the current problems, one sentence each."""
        found = [child.problem for child in self.supervisor.children.values() if child.problem]
        return [*found, *self.logs.problems(), *self.proxies.problems()]

    async def add(
        self, process: Process, name: str, replica: int, *, command: tuple[str, ...] | None
    ) -> str:
        """Start one more instance of *process*; return the address of its proxy.

        Raises:
            PortsExhaustedError: There are no ports left.
            EnvoyError, StartFailedError: It does not become ready; it is removed completely.
        """
        async with self._changing[process.name]:
            ports = self.plan.port_allocator.take(
                process, own=False, in_use=lambda p: self._in_use(p.main, p.metrics, p.admin)
            )
            units = self.plan.instance(process, name, replica, ports, command=command)
            await self._start_one(units)
        self._on_change()
        return f"127.0.0.1:{units[0].port}"

    async def remove(self, name: str) -> None:
        """Stop the instance *name* after its calls in flight have ended."""
        async with self._lock(name):
            try:
                await self._drain_and_stop(self._units_of(name))
            finally:
                self._on_change()

    async def replace(self, name: str, *, command: tuple[str, ...] | None = None) -> None:
        """Replace *name* with a new instance without losing a call.

        The new Envoy listens on the same port as the old one and gets all new connections. The
        old one asks its clients to disconnect, stops listening and exits once they have.

        Raises:
            EnvoyError, StartFailedError: The new one does not become ready; the old one continues.
        """
        async with self._lock(name):
            old = self._units_of(name)
            if not old:
                raise StartFailedError(f"{name} was stopped.")
            new = await self._start_successor(old, command)
            try:
                await self._redirect(old)
                await self._drain_and_stop(old)
            finally:
                await self._stop_one([unit for unit in old if unit.name in self.units])
                self._take_over(new)
        self._on_change()

    async def _start_successor(
        self, old: Sequence[Unit], command: tuple[str, ...] | None
    ) -> Sequence[Unit]:
        """Start another instance on the port of *old*; return its units."""
        first = old[0]
        ports = self.plan.port_allocator.take(
            first.process, in_use=lambda p: self._in_use(p.metrics, p.admin)
        )
        new = self.plan.instance(
            first.process,
            first.name,
            first.replica,
            ports,
            command=command or first.command,
            port=first.port,
        )
        await self._start_one(new, suffix=_SUCCESSOR)
        return new

    def _take_over(self, units: Sequence[Unit]) -> None:
        """Give the successors *units* the names of the units that they replace."""
        for unit in units:
            self.supervisor.rename(f"{unit.name}{_SUCCESSOR}", unit.name)
            self.units[unit.name] = unit
            self.units.pop(f"{unit.name}{_SUCCESSOR}")
            if unit.proxy is not None:
                child = self.supervisor.children[unit.name]
                handover.stop_redirecting(child.pid, ports_of(unit.proxy))

    def instances(self, service: str) -> list[str]:
        """Return the names of the replicas of *service*, without canaries."""
        return [
            name
            for name, unit in self.units.items()
            if unit.process.name == service
            and unit.kind is Kind.SERVICE
            and not name.endswith("-canary")
        ]

    def running_proxies(self) -> list[Proxy]:
        """Return every running Envoy."""
        return [unit.proxy for unit in self.units.values() if unit.proxy is not None]

    async def report(self) -> list[tuple[str, Unit, int, bool]]:
        """Return name, unit, process id and readiness of every running process."""
        children = list(self.supervisor.children.items())
        ready = await asyncio.gather(*(child.ready() for _, child in children))
        return [
            (name, self.units[name], child.pid, is_ready and bool(child.pid))
            for (name, child), is_ready in zip(children, ready, strict=True)
            if name in self.units
        ]

    def _in_use(self, *offsets: int) -> list[int]:
        ports = [self.plan.addresses.port(offset) for offset in offsets if offset]
        return [port for port in ports if not is_free(port)]

    def _lock(self, name: str) -> asyncio.Lock:
        unit = self.units.get(name)
        return self._changing[unit.process.name if unit else name]

    def _units_of(self, name: str) -> list[Unit]:
        return [self.units[n] for n in (name, f"{name}-envoy") if n in self.units]

    async def _redirect(self, units: Sequence[Unit]) -> None:
        """Let the successor of *units* accept all new connections."""
        for unit in units:
            if unit.proxy is not None:
                names = (unit.name, f"{unit.name}{_SUCCESSOR}")
                old, new = (self.supervisor.children[name].pid for name in names)
                ports = ports_of(unit.proxy)
                sharing = [proxy for proxy in self.running_proxies() if ports_of(proxy) == ports]
                await handover.redirect_connections(old, new, ports, listeners=len(sharing))

    async def _start_one(self, units: Sequence[Unit], *, suffix: str = "") -> None:
        """Start a process and, once it is serving, its proxy; if it fails, release its ports."""
        started: list[str] = []
        try:
            await self.proxies.prepare([unit.proxy for unit in units if unit.proxy])
            for unit in units:
                child = self._child(unit, suffix=suffix)
                start = self._start_proxies if unit.proxy else self.supervisor.start
                await start([child])
                self.units[child.name] = unit
                started.append(child.name)
                if unit.proxy is not None:
                    await self._complete(unit)
        except BaseException:
            for name in reversed(started):
                await self.supervisor.remove(name)
                self.units.pop(name, None)
            self._discard(units)
            raise

    async def _start_proxies(self, children: Sequence[Child]) -> None:
        """Start Envoys; if one exits because no inotify instances are left, say so."""
        try:
            await self.supervisor.start(children)
        except StartFailedError as failure:
            if any(["inotify_fd_" in await child.last_output() for child in children]):
                raise EnvoyError(envoy.NO_INOTIFY) from failure
            raise

    async def _drain_and_stop(self, units: Sequence[Unit]) -> None:
        """Stop an instance when its calls have ended.

        Without calls in flight the proxy stops first: it closes idle connections, so that no
        client sends another call to a stopped process. Long-lived streams are ended by their
        process, through its proxy.
        """
        quiet = [await handover.drain(unit.proxy) for unit in units if unit.proxy is not None]
        await self._stop_one(units[::-1] if all(quiet) else units)

    async def _stop_one(self, units: Sequence[Unit]) -> None:
        for unit in units:
            await self.supervisor.remove(unit.name)
            self.units.pop(unit.name, None)
        self._discard(units)

    def _discard(self, units: Sequence[Unit]) -> None:
        """Remove the files of stopped *units* and release their ports."""
        for unit in units:
            if unit.proxy is not None:
                self.proxies.remove(unit.proxy)
            if unit.ports is not None:
                self.plan.port_allocator.release(unit.ports)

    def _child(self, unit: Unit, *, suffix: str = "") -> Child:
        data_folder = self.plan.addresses.data_folder
        log_file = data_folder.logs / f"{unit.name}.log"
        if not suffix:
            self.logs.file(log_file).begin()
        return Child(
            name=f"{unit.name}{suffix}",
            command=unit.command,
            environment=unit.environment,
            log_file=log_file,
            logs=self.logs,
            forks=self.forks,
            ready=probe(unit, data_folder.certs),
            restore=partial(self.restore, unit.name),
        )

    def restore(self, name: str) -> None:
        """Create the files of the instance *name* that were removed while it was running.

        Raises:
            OSError: They cannot be created.
        """
        self.plan.addresses.data_folder.make_folders()
        for unit in self._units_of(name):
            if unit.proxy is not None:
                self.proxies.restore(unit.proxy)

    async def _complete(self, unit: Unit) -> None:
        """Wait until a proxy has Auth's keys and reaches every service that it may call."""
        proxy = unit.proxy
        assert proxy is not None  # noqa: S101 - called only with proxies
        deadline = asyncio.get_running_loop().time() + COMPLETE_SECONDS
        async with Admin(proxy.admin) as admin:
            while missing := await self._missing(proxy, admin):
                if asyncio.get_running_loop().time() > deadline:
                    raise StartFailedError(
                        f"{unit.name} does not reach {', '.join(missing)}; the logs are in "
                        f"{self.plan.addresses.data_folder.logs}."
                    )
                await asyncio.sleep(_POLL_SECONDS)

    async def _missing(self, proxy: Proxy, admin: Admin) -> list[str]:
        pattern = f"(^cluster[.][a-z]+[.]membership_healthy|{_KEYS_FETCHED})$"
        try:
            found = await admin.counters(pattern)
        except EnvoyError:
            return ["its own admin interface"]
        callees = clients_of(policy.load())[proxy.workload]
        missing = [name for name in callees if not found.get(f"cluster.{name}.membership_healthy")]
        keys = [value for name, value in found.items() if name.endswith(_KEYS_FETCHED)]
        if verifies_tokens(proxy) and not any(keys):
            missing.append("the key set of Auth")
        return missing


def verifies_tokens(proxy: Proxy) -> bool:
    """Return whether *proxy* fetches Auth's keys: its service has rpcs that need a session."""
    described = [one for one in policy.load().services if one.name == proxy.workload]
    return bool(proxy.key_set) and any(m.needs_session for one in described for m in one.methods)


def ports_of(proxy: Proxy) -> list[int]:
    """Return the TCP ports on which *proxy* accepts calls."""
    edge = (proxy.edge.http, proxy.edge.https) if proxy.edge else ()
    places = [place for place in (proxy.inbound, *edge) if place and not place.startswith("unix:")]
    return [int(place.rpartition(":")[2]) for place in places]
