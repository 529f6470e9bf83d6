"""A site whose mesh is made ill: its identity provider, its traffic, and calls past its edge."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import grpc
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mesh.chassis.call import User
from mesh.chassis.channel import channel
from mesh.chassis.config import MeshSettings
from mesh.chassis.identity import SpiffeId
from mesh.chassis.tokens import SigningKey, mint
from mesh.contract.wire import CANARY_HEADER
from mesh.local.control.client import send_action
from mesh.local.data_folder import DataFolder
from mesh.render.envoy.proxy import EGRESS
from mesh.render.rules import scraping
from tests.background import in_background
from tests.e2e import faults
from tests.production.telemetry.site import Site

GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")
TRAFFIC = {
    "/api/v1/surveys/requests": 20,
    "/api/v1/surveys/links?record=1&instrument=demandeur": 3,
    "/api/v1/surveys/pdf?record_id=1": 0.6,
    "/api/v1/health/status": 5,
}
"""Requests per second by path; the third is less than 5 % of Survey's."""
Metadata = tuple[tuple[str, str], ...]


class Patient:
    """The site of the faults."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._further: set[scraping.Target] = set()

    @property
    def mesh(self) -> faults.Mesh:
        """The mesh, for the faults of `tests.e2e.faults`."""
        running = self.site.mesh
        return faults.Mesh(running.ready, running.data, appwrite=None, small_disk=False)

    @contextmanager
    def scraped(self, process: str, workload: str, address: str) -> Iterator[None]:
        """Let Prometheus scrape a further process."""
        target = scraping.Target("amarre", process, workload, address)
        self._further.add(target)
        self.site.scrape([*self.site.targets(), *self._further])
        try:
            yield
        finally:
            self._further.remove(target)
            self.site.scrape([*self.site.targets(), *self._further])

    def control(self, action: str, **arguments: Any) -> None:
        """Send a control action to the mesh, as the command line does."""
        folder = DataFolder(self.site.mesh.data)
        asyncio.run(send_action(folder, action, lambda _: None, **arguments))

    @contextmanager
    def injected(self, method: str, **arguments: Any) -> Iterator[None]:
        """Inject a fault as ``amarre fault add`` does, and remove it at the end."""
        self.control("fault add", method=method, **arguments)
        try:
            yield
        finally:
            self.control("fault clear", method=method)

    def metrics(self, process: str) -> str:
        """Return the address of the metrics of *process*, HOST:PORT."""
        content = json.loads(DataFolder(self.site.mesh.data).scraped.read_text())
        url: str = next(one["url"] for one in content if one["process"] == process)
        return urlsplit(url).netloc

    @asynccontextmanager
    async def calls(self, service: str) -> AsyncIterator[grpc.aio.Channel]:
        """Open a channel like the gateway's, through its proxy."""
        (file,) = DataFolder(self.site.mesh.data).envoy.glob("gateway-envoy.*/envoy.yaml")
        listeners = yaml.safe_load(file.read_text())["static_resources"]["listeners"]
        (egress,) = (one for one in listeners if one["name"] == EGRESS)
        peers = {service: f"unix:{egress['address']['pipe']['path']}"}
        settings = MeshSettings(transport="sidecar", peers=peers)
        async with channel(service, settings, own_connection=True) as opened:
            yield opened

    def credentials(self, user: str, audience: str, *, canary: bool = False) -> Metadata:
        """Return the metadata of a call on behalf of *user*."""
        file = DataFolder(self.site.mesh.data).secret("auth-signing-key.pem")
        private = load_pem_private_key(file.read_bytes(), None)
        assert isinstance(private, Ed25519PrivateKey)
        known = User(user, f"session-{user}", f"{user}@example.org", ("applicant",))
        token, _ = mint(SigningKey.of(private), known, audience=audience, caller=GATEWAY)
        header = (("authorization", f"Bearer {token}"),)
        return (*header, (CANARY_HEADER, "1")) if canary else header


@contextmanager
def repeated(*works: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """Run *works* side by side, each again as soon as it ends."""

    async def again(work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await work()

    async def run(done: Event) -> None:
        tasks = [asyncio.create_task(again(work)) for work in works]
        await asyncio.to_thread(done.wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with in_background(lambda done: asyncio.run(run(done))):
        yield
