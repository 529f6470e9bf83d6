"""Faults in a whole mesh and its environment, each active within its context."""

import asyncio
import contextlib
import datetime as dt
import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from mesh.local.pki.certificate_authority import CertificateAuthority, install
from tests.background import in_background
from tests.integration.researcher import COOKIE, Researcher

LIST = "/api/v1/surveys/list"
DISK_MEGABYTES = 400
BAD_CANARY = """
import runpy
from survey_svc.service import SurveyService

async def broken(self, request, context):
    raise RuntimeError("broken")

SurveyService.ListRequests = broken
runpy.run_module("survey_svc", run_name="__main__")
"""


@dataclass(frozen=True)
class Mesh:
    """A running mesh for fault injection in processes and environment."""

    ready: Any
    data: Path
    appwrite: subprocess.Popen[bytes] | None
    small_disk: bool
    """Whether the data folder is on a disk of its own, which can be filled."""

    def pid(self, name: str) -> int:
        """Return the process id of *name*, which changes with each restart."""
        processes = json.loads((self.data / "ready.json").read_text())["processes"]
        return next(int(p["pid"]) for p in processes if p["name"] == name)

    def amarre(self, *arguments: str) -> None:
        """Run a command on this mesh."""
        subprocess.run(
            [sys.executable, "-m", "mesh.cli", *arguments],
            env=os.environ | {"AMARRE_DATA": str(self.data)},
            check=True,
            capture_output=True,
        )


Fault = Callable[[Mesh], AbstractContextManager[None]]


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[bool]:
    """Mount a small disk at *folder*; yields whether that is permitted."""
    size = f"size={DISK_MEGABYTES}m"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True, check=False
    )
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def identity_provider(folder: Path, base: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the Appwrite sandbox for a mesh on the ports from *base*, which its settings use."""
    address, key = f"127.0.0.1:{base + 13}", folder / "appwrite-key"
    command = [sys.executable, "-m", "sandbox.appwrite", "--listen", address]
    command += ["--key-file", str(key), "--smtp", f"127.0.0.1:{base + 12}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMARRE_AUTH_PROVIDER", "appwrite")
        patch.setenv("AMARRE_AUTH_APPWRITE_ENDPOINT", f"http://{address}/v1")
        patch.setenv("AMARRE_AUTH_APPWRITE_PROJECT", "amarre")
        patch.setenv("AMARRE_AUTH_APPWRITE_KEY_FILE", str(key))
        process = subprocess.Popen(command, start_new_session=True)
        try:
            while not key.exists():
                assert process.poll() is None
                time.sleep(0.05)
            yield process
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def hung(mesh: Mesh, name: str) -> AbstractContextManager[None]:
    return stopped(mesh.pid(name))


@contextlib.contextmanager
def killed(mesh: Mesh, name: str) -> Iterator[None]:
    os.kill(mesh.pid(name), signal.SIGKILL)
    yield


@contextlib.contextmanager
def wrong_clock(ready: Any, name: str) -> Iterator[None]:
    """Telemetry of a process whose clock is two minutes ahead."""
    at = str(time.time_ns() + 120 * 10**9)
    attributes = [
        {"key": key, "value": {"stringValue": name}}
        for key in ("service.name", "service.instance.id")
    ]
    record = {"timeUnixNano": at, "severityText": "INFO", "body": {"stringValue": "tick"}}
    resource = {"resource": {"attributes": attributes}, "scopeLogs": [{"logRecords": [record]}]}
    url = f"{ready['urls']['otlp_http']}/v1/logs"
    httpx.post(url, json={"resourceLogs": [resource]}, trust_env=False).raise_for_status()
    yield


@contextlib.contextmanager
def redcap(mesh: Mesh, **faults: Any) -> Iterator[None]:
    url = f"{mesh.ready['urls']['sandbox']}/_control/faults"
    none = {"latency_ms": 0, "error_rate": 0.0, "mode": "none"}
    httpx.put(url, json=none | faults, trust_env=False).raise_for_status()
    try:
        yield
    finally:
        httpx.put(url, json=none, trust_env=False).raise_for_status()


@contextlib.contextmanager
def locked(mesh: Mesh, name: str) -> Iterator[None]:
    """Another program that holds the lock on the database of *name*."""
    path = mesh.data / "state" / f"{name}.sqlite"
    # Writers of the service are ahead of it.
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    with contextlib.closing(database):
        database.execute("BEGIN IMMEDIATE")
        yield


@contextlib.contextmanager
def full_disk(mesh: Mesh) -> Iterator[None]:
    if not mesh.small_disk:
        pytest.skip("mounting a small disk needs root")
    filler = mesh.data / "filler"
    try:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(1024 * 1024)):
                pass
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def old_certificate(mesh: Mesh, name: str) -> Iterator[None]:
    """A one-day certificate that should have been renewed long ago."""
    authority = CertificateAuthority.load_or_create(mesh.data / "ca")
    issued = authority.issue(
        uris=[f"spiffe://amarre.local/ns/amarre/sa/{name}"],
        names=[f"{name}.amarre.local", "localhost"],
        common_name=f"{name} workload",
        not_before=dt.datetime.now(dt.UTC) - dt.timedelta(hours=22),
    )
    folder = mesh.data / "certs" / name
    install(issued, folder)
    try:
        yield
    finally:
        install(authority.issue_svid(name), folder)


@contextlib.contextmanager
def intruder(mesh: Mesh, caller: str, service: str, path: str) -> Iterator[None]:
    """Calls with the certificate of *caller*, which the contract of the method does not name."""
    svid = mesh.data / "certs" / caller
    chain, key, roots = ((svid / name).read_bytes() for name in ("tls.crt", "tls.key", "ca.crt"))
    credentials = grpc.ssl_channel_credentials(roots, key, chain)
    options = [("grpc.ssl_target_name_override", f"{service}.amarre.local")]
    with grpc.secure_channel(mesh.ready["grpc"][service], credentials, options) as channel:
        call: Any = channel.unary_unary(path, lambda _: b"", lambda data: data)
        for _ in range(30):
            with pytest.raises(grpc.RpcError) as refusal:
                call(None, timeout=10)
            assert grpc.StatusCode.PERMISSION_DENIED is refusal.value.code()
    yield


@contextlib.contextmanager
def researchers(mesh: Mesh, count: int, pause: float) -> Iterator[None]:
    """*count* browsers of one researcher that list requests, with *pause* seconds in between."""

    async def browse(client: httpx.AsyncClient, done: threading.Event) -> None:
        while not done.is_set():
            with contextlib.suppress(httpx.TransportError):
                await client.get(LIST)
            await asyncio.sleep(pause)

    async def browsers(done: threading.Event) -> None:
        app, limits = mesh.ready["urls"]["app"], httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=app, headers=headers, limits=limits, timeout=30, trust_env=False
        ) as client:
            await asyncio.gather(*(browse(client, done) for _ in range(count)))

    with Researcher(mesh.ready) as ada:
        ada.sign_in()
        headers = {"Cookie": f"{COOKIE}={ada.session}", "Sec-Fetch-Site": "same-origin"}
    with in_background(lambda done: asyncio.run(browsers(done))):
        yield


@contextlib.contextmanager
def failing_canary(mesh: Mesh) -> Iterator[None]:
    program = mesh.data / "canary.py"
    program.write_text(BAD_CANARY)
    command = shlex.join([sys.executable, str(program)])
    with researchers(mesh, 4, 0.05):
        mesh.amarre("canary", "start", "survey", "--weight", "50", "--command", command)
        yield


@contextlib.contextmanager
def retry_storm(mesh: Mesh) -> Iterator[None]:
    """A service that fails many of its calls, each of which is retried."""
    with researchers(mesh, 6, 0.02):
        mesh.amarre("fault", "add", "survey.ListRequests", "--abort", "UNAVAILABLE", "--percent=40")
        try:
            yield
        finally:
            mesh.amarre("fault", "clear")


@contextlib.contextmanager
def overload(mesh: Mesh) -> Iterator[None]:
    """More browsers than the edge admits at once, each waiting a second for its response."""
    mesh.amarre("fault", "add", "survey.ListRequests", "--delay", "1s")
    try:
        with researchers(mesh, 320, 0.5):
            yield
    finally:
        mesh.amarre("fault", "clear")
