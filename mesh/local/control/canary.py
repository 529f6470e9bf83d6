"""
A second version of a service beside the first: its share of calls, its verdict, its end.
"""

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

import structlog

from mesh import topology
from mesh.control import ControlError, Progress
from mesh.local.control.canary_analysis import Sample, Verdict, judge, read
from mesh.local.processes.envoy import Admin, EnvoyError
from mesh.local.processes.fleet import Fleet
from mesh.local.processes.supervisor import StartFailedError
from mesh.render.envoy.placement import canary_of

log = structlog.get_logger("canary")

STEPS = (10, 25, 50, 100)
STEP_SECONDS = 5.0
"""A share is kept for at least this long before it grows."""
LOOK_SECONDS = 0.5
READY_SECONDS = 10.0


class Canary:
    """One canary, from its start to its promotion or abort."""

    def __init__(
        self, fleet: Fleet, service: str, *, command: tuple[str, ...] | None, manual: bool
    ) -> None:
        self.service = service
        self.name = f"{service}-canary"
        self.command = command
        self.manual = manual
        self.weight = 0
        self.state = "starting"
        self._fleet = fleet
        self._judging: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._began = self._stepped = (Sample(), Sample())
        self._stepped_at = 0.0
        self.stable, self.canary = Sample(), Sample()
        self.verdict = Verdict.WAIT

    async def start(self, weight: int) -> None:
        """
        Start the second version and give it its share.

        Raises:
            ControlError: It does not become ready; the mesh is as before.
        """
        process = topology.process(self.service)
        try:
            where = await self._fleet.add(process, self.name, 1, command=self.command)
        except (EnvoyError, StartFailedError) as exc:
            raise ControlError(
                f"The canary does not become ready; nothing changed.\n{exc}"
            ) from exc
        proxies = self._fleet.proxies
        proxies.steer(endpoints={**proxies.endpoints, canary_of(self.service): (where,)})
        await self._wait_until_reached()
        self._began = await self._read()
        self.state = "running"
        await self.set(weight)
        self._judging = asyncio.create_task(self._judge())

    async def set(self, weight: int) -> None:
        """Give the canary *weight* percent of the calls, live within milliseconds."""
        self.weight = weight
        self._steer(weight)
        self._stepped = await self._read()
        self._stepped_at = asyncio.get_running_loop().time()
        log.info("canary share", canary=self.name, percent=weight)

    async def abort(self, why: str = "aborted by hand") -> None:
        """Take all calls away from the canary at once, then stop it."""
        async with self._changing:
            if self.name not in self._fleet.units:
                return
            self.state = why
            await self._end()
            log.warning("canary aborted", canary=self.name, why=why)

    async def promote(self, progress: Progress = lambda _: None) -> None:
        """
        Let the canary's program take the place of every replica, then stop the canary.

        Raises:
            ControlError: A replica does not become ready with it; the canary serves on.
        """
        async with self._changing:
            if self.name not in self._fleet.units:
                return
            await self.set(100)
            self.state = "being promoted"
            for name in self._fleet.instances(self.service):
                progress(f"{name} takes the canary's program …")
                try:
                    await self._fleet.replace(name, command=self.command)
                except (EnvoyError, StartFailedError) as exc:
                    self.state = "promotion failed; the canary has all calls"
                    raise ControlError(f"{self.state}:\n{exc}") from exc
            await self._end()
            self.state = "promoted"
            log.info("canary promoted", canary=self.name)

    async def close(self) -> None:
        """Stop judging."""
        if self._judging is not None and self._judging is not asyncio.current_task():
            self._judging.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._judging

    def status(self) -> dict[str, Any]:
        """Return how it goes, for people and programs."""
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
        self.weight = 0
        self._steer(None)
        proxies = self._fleet.proxies
        rest = {k: v for k, v in proxies.endpoints.items() if k != canary_of(self.service)}
        await self._fleet.remove(self.name)
        proxies.steer(endpoints=rest)

    def _steer(self, weight: int | None) -> None:
        traffic = self._fleet.proxies.traffic
        weights = {k: v for k, v in traffic.weights.items() if k != self.service}
        if weight is not None:
            weights[self.service] = weight
        self._fleet.proxies.steer(traffic=replace(traffic, weights=weights))

    async def _wait_until_reached(self) -> None:
        """Wait until the gateway's Envoy has seen the canary healthy."""
        name = f"cluster.{canary_of(self.service)}.membership_healthy"
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        async with Admin(self._admin) as admin:
            while not (await admin.counters(f"^{name}$")).get(name):
                if asyncio.get_running_loop().time() > deadline:
                    await self._end()
                    raise ControlError("The canary is not healthy to its callers; nothing changed.")
                await asyncio.sleep(0.05)

    @property
    def _admin(self) -> str:
        """The admin interface of the gateway's Envoy, through which nearly all calls go."""
        return next(p.admin for p in self._fleet.running_proxies() if p.workload == "gateway")

    async def _read(self) -> tuple[Sample, Sample]:
        async with Admin(self._admin) as admin:
            return await read(admin, self.service)

    async def _judge(self) -> None:
        """
        Promote by steps while the canary is healthy; abort at once when it is not.

        Where people have the verdict they are told the same, and nothing is done.
        """
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                stable, canary = await self._read()
            except EnvoyError:
                continue
            # What it is compared with is all that the stable version did beside the canary: at
            # its last step it does nothing any more.
            self.stable = stable.since(self._began[0])
            self.canary = canary.since(self._stepped[1])
            verdict = self.verdict = judge(self.stable, self.canary)
            if self.manual:
                continue
            if verdict is Verdict.BAD:
                await self.abort(f"aborted: {self.canary} beside {self.stable}")
                return
            if verdict is Verdict.HEALTHY and loop.time() - self._stepped_at >= STEP_SECONDS:
                if self.weight >= STEPS[-1]:
                    with contextlib.suppress(ControlError):
                        await self.promote()
                    return
                await self.set(next(step for step in STEPS if step > self.weight))
