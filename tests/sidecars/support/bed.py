"""A small mesh for tests: services in this process, each behind a real Envoy."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from amarre.survey.v1 import survey_service_pb2_grpc as rpc

from mesh.chassis.call import User
from mesh.chassis.channel import channel
from mesh.chassis.config import MeshSettings
from mesh.chassis.identity import SpiffeId
from mesh.chassis.server import Server
from mesh.chassis.testing import FixedKeys, free_port
from mesh.chassis.tokens import SigningKey, TokenVerifier, mint
from mesh.contract import policy
from mesh.contract.policy import Mesh
from mesh.local.pki import certificate_authority
from mesh.local.processes.envoy import Admin, command
from mesh.render.envoy import Collector, Edge, Proxy, Telemetry, Traffic, files, live_files

KEY = SigningKey.generate()
ADA = User("ada", "session-1", "ada@example.org", ("applicant",))
GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")
READY_SECONDS = 10.0


def bearer(audience: str = "survey", key: SigningKey = KEY) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call on behalf of Ada."""
    token, _ = mint(key, ADA, audience=audience, caller=GATEWAY)
    return (("authorization", f"Bearer {token}"),)


async def eventually(
    holds: Callable[[], Awaitable[bool]], what: str, within: float = READY_SECONDS
) -> None:
    """Wait until *holds* is true; fail with *what* on timeout."""
    deadline = time.monotonic() + within
    while not await holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within} s")
        await asyncio.sleep(0.02)


@dataclass
class RunningEnvoy:
    """One Envoy that a test started."""

    proxy: Proxy
    process: asyncio.subprocess.Process
    admin: Admin
    ready_ms: float
    log: Path

    async def counter(self, name: str) -> int:
        """Return one counter; 0 if it does not exist yet."""
        found = await self.admin.counters(f"^{name.replace('.', '[.]')}$")
        return found.get(name, 0)

    def access_log(self) -> list[dict[str, Any]]:
        """Return the logged requests so far."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def logged(self, matches: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for a request in the access log, which is written a moment later."""
        found: list[dict[str, Any]] = []

        async def appears() -> bool:
            found.extend(line for line in self.access_log() if matches(line))
            return bool(found)

        await eventually(appears, f"a line in the access log of {self.proxy.name}")
        return found[0]


@dataclass
class Bed:
    """The folder, the identities and everything that runs."""

    folder: Path
    svids: Path
    authority: certificate_authority.CertificateAuthority
    stack: contextlib.AsyncExitStack
    mesh: Mesh = field(default_factory=policy.load)
    traffic: Traffic = field(default_factory=Traffic)
    endpoints: dict[str, tuple[str, ...]] = field(default_factory=dict)
    envoys: dict[str, RunningEnvoy] = field(default_factory=dict)
    processes: dict[str, contextlib.AsyncExitStack] = field(default_factory=dict)
    """The servers behind proxies, by name; closing one leaves its proxy running."""

    async def key_set(self, *keys: SigningKey) -> str:
        """Publish the public keys of *keys* on a Unix socket; return its address."""
        body = json.dumps({"keys": [key.jwk() for key in keys]}).encode()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await reader.readuntil(b"\r\n\r\n")
                    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n"
                    writer.write(head.encode() + body)
            writer.close()

        path = self.folder / "keys.sock"
        server = await asyncio.start_unix_server(answer, path)
        self.stack.callback(server.close)
        return f"unix:{path}"

    async def service(
        self, servicer: Any, name: str = "survey", *, cluster: str = "survey", keys: str = ""
    ) -> RunningEnvoy:
        """Serve *servicer* as *name* behind an Envoy, as one endpoint of *cluster*."""
        socket = await self.serve(servicer, name)
        proxy = self.proxy(name, "survey", app=socket, inbound=f"127.0.0.1:{free_port()}")
        proxy = replace(proxy, key_set=keys or await self.key_set(KEY))
        self.endpoints[cluster] = (*self.endpoints.get(cluster, ()), proxy.inbound)
        return await self.start(proxy)

    async def serve(self, servicer: Any, name: str) -> str:
        """Serve *servicer* on the socket of *name*, without a proxy; return its address."""
        socket = f"unix:{self.folder / name}.sock"
        process = await self.stack.enter_async_context(contextlib.AsyncExitStack())
        await process.enter_async_context(in_process(servicer, socket))
        self.processes[name] = process
        return socket

    async def caller(self, edge: Edge | None = None, app: str = "") -> RunningEnvoy:
        """Start the gateway's Envoy."""
        for name in ("auth", "survey", "health"):
            self.endpoints.setdefault(name, ())
        proxy = self.proxy("gateway", "gateway", app=app or f"unix:{self.folder}/none.sock")
        if edge is not None:
            # Nobody listens there: a collector that is unavailable costs an edge nothing.
            nobody = Collector("127.0.0.1:9")
            proxy = replace(proxy, edge=edge, telemetry=Telemetry(traces=nobody, logs=nobody))
        return await self.start(proxy)

    def proxy(self, name: str, workload: str, *, app: str, inbound: str = "") -> Proxy:
        """Return the address of the Envoy of *name*."""
        return Proxy(
            name=f"{name}-envoy",
            workload=workload,
            folder=str(self.folder / f"{name}-envoy"),
            svid_dir=str(self.svids / workload),
            admin=f"127.0.0.1:{free_port()}",
            app=app,
            egress=f"unix:{self.folder / name}-out.sock",
            inbound=inbound,
            telemetry=Telemetry(),
        )

    async def start(self, proxy: Proxy) -> RunningEnvoy:
        """Write the files of *proxy* and start it; stop it at the end of the test."""
        folder = Path(proxy.folder)
        for name, text in files(self.mesh, proxy, self.endpoints, self.traffic).items():
            write(folder / name, text)
        log = self.folder / f"{proxy.name}.log"
        started = time.monotonic()
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command(folder), stdout=output, stderr=output, start_new_session=True
            )
        self.stack.push_async_callback(_stop, process)
        admin = await self.stack.enter_async_context(Admin(proxy.admin))

        async def ready() -> bool:
            if process.returncode is not None:
                raise AssertionError(f"{proxy.name} ended:\n{log.read_text()[-3000:]}")
            return await admin.is_ready()

        await eventually(ready, f"{proxy.name} ready")
        envoy = RunningEnvoy(proxy, process, admin, (time.monotonic() - started) * 1000, log)
        self.envoys[proxy.name] = envoy
        return envoy

    def steer(self, traffic: Traffic) -> None:
        """Give every running Envoy the routes for *traffic*."""
        self.traffic = traffic
        for envoy in self.envoys.values():
            live = live_files(self.mesh, envoy.proxy, self.endpoints, traffic)
            for name, text in live.items():
                write(Path(envoy.proxy.folder) / name, text)

    def through(self, envoy: RunningEnvoy, service: str = "survey") -> grpc.aio.Channel:
        """Return a channel like that of the process behind *envoy*: over the Unix socket."""
        settings = MeshSettings(transport="sidecar", peers={service: envoy.proxy.egress})
        return channel(service, settings)

    def directly(self, envoy: RunningEnvoy, identity: Path) -> grpc.aio.Channel:
        """Return a channel to the inbound listener of *envoy*, with a given SVID."""
        settings = MeshSettings(peers={"survey": envoy.proxy.inbound}, svid_dir=identity)
        return channel("survey", settings)


def write(path: Path, text: str) -> None:
    """Write a file atomically, which is what Envoy watches for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    partial.write_text(text)
    partial.replace(path)


@contextlib.asynccontextmanager
async def in_process(servicer: Any, socket: str) -> AsyncIterator[None]:
    """Serve *servicer* on a Unix socket in this process."""
    settings = MeshSettings(listen=socket, transport="sidecar", drain_timeout=timedelta(seconds=1))
    tokens = TokenVerifier(FixedKeys(KEY), audience="survey")

    def register(server: Any) -> None:
        rpc.add_SurveyServiceServicer_to_server(servicer, server)

    async with Server(settings, register, tokens=tokens):
        yield


@contextlib.asynccontextmanager
async def bed() -> AsyncIterator[Bed]:
    """Yield an empty bed in a folder whose name is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="amarre-"))
    try:
        authority = certificate_authority.CertificateAuthority.create()
        certificate_authority.issue_all(authority, folder / "certs")
        async with contextlib.AsyncExitStack() as stack:
            yield Bed(folder, folder / "certs", authority, stack)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


Counters = Mapping[str, int]
