"""Canaries: a second version of a service with a share of the calls, promoted or aborted."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog

from mesh import topology
from mesh.chassis.background import supervise
from mesh.control import ControlError, Progress
from mesh.local.control.canary_analysis import Sample, Verdict, judge, read
from mesh.local.processes.envoy import Admin, EnvoyError
from mesh.local.processes.fleet import Fleet
from mesh.local.processes.port_allocator import PortsExhaustedError
from mesh.local.processes.supervisor import StartFailedError
from mesh.render.envoy.proxy import canary_of

log = structlog.get_logger("canary")

STEPS = (10, 25, 50, 100)
STEP_SECONDS = 5.0
"""Minimum time between increases of the weight."""
LOOK_SECONDS = 0.5
READY_SECONDS = 10.0


class Canary:
    """One canary, from its start to its promotion or abort."""

    def __init__(
        self,
        fleet: Fleet,
        service: str,
        *,
        command: tuple[str, ...] | None,
        manual: bool,
        record: Callable[[str, dict[str, Any]], None] = lambda action, arguments: None,
    ) -> None:
        """Prepare the canary; *record* receives each action that its analysis decides on."""
        self.service = service
        self.name = f"{service}-canary"
        self.command = command
        self.manual = manual
        self.weight = 0
        self.state = "starting"
        self._fleet = fleet
        self._record = record
        self._starting: asyncio.Task[None] | None = None
        self._analyzing: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._began = (Sample(), Sample())
        self._stepped: tuple[Sample, Sample] | None = None
        """Counters of both versions at the last change of the weight."""
        self._stepped_at = 0.0
        self.stable, self.canary = Sample(), Sample()
        self.verdict = Verdict.WAIT
        self.problem = ""
        """Why the analysis is not progressing."""

    @property
    def active(self) -> bool:
        """Whether the canary is starting, running or stopping."""
        return self.changing or self.name in self._fleet.units

    @property
    def changing(self) -> bool:
        """Whether the canary is being started, promoted or aborted."""
        return self.state == "starting" or self._changing.locked()

    async def start(self, weight: int) -> None:
        """Start the second version and route its share of calls to it.

        Raises:
            ControlError: It does not become ready, or is aborted; the mesh is unchanged.
        """
        async with self._changing:
            self._starting = asyncio.create_task(self._begin())
            [failure] = await asyncio.gather(self._starting, return_exceptions=True)
            aborted = self.state != "starting"
            if aborted or failure is not None:
                self.state = self.state if aborted else "failed to start"
                await self._end()
                why = self.state if aborted else failure
                raise ControlError(f"The canary is not ready; nothing changed.\n{why}") from failure
            self.state = "running"
            self.set(weight)
        self._analyzing = asyncio.create_task(supervise(f"analysis of {self.name}", self._analyze))

    async def _begin(self) -> None:
        process = topology.process(self.service)
        address = await self._fleet.add(process, self.name, 1, command=self.command)
        proxies = self._fleet.proxies
        proxies.apply(endpoints={**proxies.endpoints, canary_of(self.service): (address,)})
        await self._wait_until_healthy()
        self._began = self._stepped = await self._read()

    def set(self, weight: int) -> None:
        """Give the canary *weight* percent of the calls, effective within milliseconds."""
        self.weight = weight
        self._steer(weight)
        self._stepped = None
        self._stepped_at = asyncio.get_running_loop().time()
        log.info("canary weight changed", canary=self.name, percent=weight)

    async def abort(self, why: str = "aborted by an operator") -> None:
        """Set the canary's weight to 0 at once, then stop it; a start in progress is cancelled.

        Idempotent: always ends with weight 0 and no canary process.
        """
        existed = self.state == "starting"
        if existed:
            self.state = why
            if self._starting is not None:
                self._starting.cancel()
        async with self._changing:
            if self.name in self._fleet.units:
                existed, self.state = True, why
            await self._end()
            if existed:
                log.warning("canary aborted", canary=self.name, reason=why)

    async def promote(self, progress: Progress = lambda _: None) -> None:
        """Replace every replica with one that runs the canary's command, then stop the canary.

        Raises:
            ControlError: A replica does not become ready; the canary keeps all calls.
        """
        async with self._changing:
            if self.name not in self._fleet.units:
                return
            self.set(100)
            self.state = "being promoted"
            for name in self._fleet.instances(self.service):
                progress(f"Replacing {name} …")
                try:
                    await self._fleet.replace(name, command=self.command)
                except (EnvoyError, StartFailedError, PortsExhaustedError, OSError) as exc:
                    self.state = "promotion failed; the canary has all calls"
                    raise ControlError(f"{self.state}:\n{exc}") from exc
            await self._end()
            self.state = "promoted"
            log.info("canary promoted", canary=self.name)

    async def close(self) -> None:
        """Stop the analysis."""
        analyzing, self._analyzing = self._analyzing, None
        if analyzing is not None and analyzing is not asyncio.current_task():
            analyzing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await analyzing

    def status(self) -> dict[str, Any]:
        """Return the state, for the CLI and the console."""
        return {
            "service": self.service,
            "state": self.state,
            "weight": self.weight,
            "manual": self.manual,
            "verdict": str(self.verdict),
            "stable": str(self.stable),
            "canary": str(self.canary),
        }

    async def _end(self) -> None:
        """Remove everything of the canary; a failing step does not prevent the others."""
        self.weight = 0
        self._steer(None)
        proxies = self._fleet.proxies
        rest = {k: v for k, v in proxies.endpoints.items() if k != canary_of(self.service)}
        try:
            await self._fleet.remove(self.name)
        finally:
            proxies.apply(endpoints=rest)

    def _steer(self, weight: int | None) -> None:
        traffic = self._fleet.proxies.traffic
        weights = {k: v for k, v in traffic.weights.items() if k != self.service}
        if weight is not None:
            weights[self.service] = weight
        self._fleet.proxies.apply(traffic=replace(traffic, weights=weights))

    async def _wait_until_healthy(self) -> None:
        """Wait until the gateway's Envoy has seen the canary healthy.

        Raises:
            EnvoyError: It has not, within `READY_SECONDS`.
        """
        name = f"cluster.{canary_of(self.service)}.membership_healthy"
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        for address in self._callers():
            async with Admin(address) as admin:
                while not (await admin.counters(f"^{name}$")).get(name):
                    if asyncio.get_running_loop().time() > deadline:
                        raise EnvoyError("Its callers do not see it as healthy.")
                    await asyncio.sleep(0.05)

    def _callers(self) -> list[str]:
        """Return the admin interfaces of the gateways' Envoys, which carry nearly all calls."""
        return [p.admin for p in self._fleet.running_proxies() if p.workload == "gateway"]

    async def _read(self) -> tuple[Sample, Sample]:
        stable, canary = Sample(), Sample()
        for address in self._callers():
            async with Admin(address) as admin:
                counted = await read(admin, self.service)
            stable, canary = stable + counted[0], canary + counted[1]
        return stable, canary

    async def _analyze(self) -> None:
        """Promote the canary step by step while it is healthy; abort at once if it is not.

        The analysis pauses while Envoy does not respond.
        """
        while self.name in self._fleet.units:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if await self._decide():
                    return
            except Exception as exc:
                if self.problem != str(exc):
                    log.warning("canary analysis failed", canary=self.name, message=str(exc))
                self.problem = str(exc)
            else:
                self.problem = ""

    async def _decide(self) -> bool:
        """Compare both versions and act; returns whether the analysis is over.

        A canary that is promoted manually is only compared.
        """
        stable, canary = await self._read()
        if self._stepped is None:
            self._stepped = stable, canary
        # The stable version is compared over the canary's whole lifetime: at the last step it no
        # longer gets calls.
        self.stable = stable.since(self._began[0])
        self.canary = canary.since(self._stepped[1])
        verdict = self.verdict = judge(self.stable, self.canary)
        if self.manual:
            return False
        if verdict is Verdict.BAD:
            await self.abort(f"aborted: {self.canary}; stable version: {self.stable}")
            self._record("canary abort", {"service": self.service})
            return True
        kept = asyncio.get_running_loop().time() - self._stepped_at
        if verdict is Verdict.HEALTHY and kept >= STEP_SECONDS:
            if self.weight >= STEPS[-1]:
                with contextlib.suppress(ControlError):
                    await self.promote()
                    self._record("canary promote", {"service": self.service})
                return True
            self.set(next(step for step in STEPS if step > self.weight))
            self._record("canary set", {"service": self.service, "weight": self.weight})
        return False
