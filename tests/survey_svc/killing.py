"""Users create and retry while replicas are killed; afterwards the records are counted."""

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
from amarre.survey.v1 import survey_service_pb2 as messages
from amarre.survey.v1.survey_service_pb2_grpc import SurveyServiceStub

from mesh.chassis import tokens
from mesh.chassis.call import User
from mesh.chassis.identity import SpiffeId
from mesh.chassis.testing import connected, free_port
from tests.survey_svc.sandbox import Sandbox

GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")
REDCAP_LATENCY_MS = 60
"""Makes creations last long enough to be hit."""


@dataclass
class Outcome:
    """Outcome: ids that clients received, and records in REDCap."""

    kills: int = 0
    repeats: int = 0
    told: dict[str, list[str]] = field(default_factory=dict)
    held: dict[str, list[str]] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Number of ids that clients received but REDCap does not have."""
        return sum(len(set(self.told[user]) - set(self.held[user])) for user in self.told)

    @property
    def duplicated(self) -> int:
        """Number of records in REDCap that no client received: duplicates."""
        return sum(len(self.held[user]) - len(set(self.told[user])) for user in self.told)

    @property
    def created(self) -> int:
        """Number of successful creations."""
        return sum(map(len, self.told.values()))


class Replicas:
    """Two survey processes on one store, which are killed and restarted in turn."""

    def __init__(self, folder: Path, svids: Path, sandbox: Sandbox, key_set_url: str) -> None:
        self.ports = [free_port(), free_port()]
        self._log = folder / "survey.log"
        self._environment = {
            "PATH": os.environ["PATH"],
            "AMARRE_SVID_DIR": str(svids / "survey"),
            "AMARRE_KEY_SET_URL": key_set_url,
            "AMARRE_SURVEY_REDCAP_URL": sandbox.api_url,
            "AMARRE_SURVEY_REDCAP_TOKEN_FILE": str(sandbox.token_file),
            "AMARRE_SURVEY_STORE": f"sqlite+aiosqlite:///{folder / 'survey.sqlite'}",
            "AMARRE_DRAIN_TIMEOUT": "PT1S",
        }
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    async def start(self, port: int) -> None:
        """Start the replica on *port*."""
        environment = self._environment | {"AMARRE_LISTEN": f"127.0.0.1:{port}"}
        with self._log.open("ab") as log:
            self._processes[port] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "survey_svc", env=environment, stdout=log, stderr=log
            )

    def pid(self, port: int) -> int:
        """Return the process id of the replica on *port*."""
        return self._processes[port].pid

    async def kill(self, port: int) -> None:
        """Kill the replica on *port*, to simulate a crash."""
        process = self._processes.pop(port)
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def stop(self) -> None:
        """Kill the remaining replicas."""
        for port in list(self._processes):
            await self.kill(port)


async def run(
    folder: Path, svids: Path, *, seconds: float, users: int, keys: bool, every: float = 1.5
) -> Outcome:
    """Let *users* create for *seconds* while a replica is killed *every* so many seconds."""
    key = tokens.SigningKey.generate()
    outcome = Outcome()
    async with contextlib.AsyncExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(folder))
        url = stack.enter_context(key_set(key))
        replicas = Replicas(folder, svids, sandbox, url)
        stack.push_async_callback(replicas.stop)
        stubs = [
            await stack.enter_async_context(
                connected("survey", port, svids / "gateway", SurveyServiceStub)
            )
            for port in replicas.ports
        ]
        for port in replicas.ports:
            await replicas.start(port)
        sandbox.fault(latency_ms=REDCAP_LATENCY_MS)
        ends_at = time.monotonic() + seconds
        names = [f"user{n}" for n in range(users)]
        work = [_create_on(stubs, key, sandbox, n, ends_at, outcome, keys=keys) for n in names]
        await asyncio.gather(_kill(replicas, ends_at, every, outcome), *work)
        sandbox.fault()
        outcome.held = {n: [row["record_id"] for row in sandbox.records(n)] for n in names}
    return outcome


async def _kill(replicas: Replicas, ends_at: float, every: float, outcome: Outcome) -> None:
    for port in itertools.cycle(replicas.ports):
        await asyncio.sleep(every)
        if time.monotonic() >= ends_at:
            return
        await replicas.kill(port)
        outcome.kills += 1
        await replicas.start(port)


async def _create_on(
    stubs: list[Any],
    key: tokens.SigningKey,
    sandbox: Sandbox,
    user: str,
    ends_at: float,
    outcome: Outcome,
    *,
    keys: bool,
) -> None:
    """Create one request after the other, each retried until it succeeds."""
    told = outcome.told.setdefault(user, [])
    turns = itertools.cycle(stubs)
    while time.monotonic() < ends_at:
        request = messages.CreateRequestRequest(
            consent=True, idempotency_key=secrets.token_hex(16) if keys else ""
        )
        record = await _until_answered(turns, key, user, request, outcome)
        if record:
            told.append(record)
        await asyncio.to_thread(_complete_all, sandbox, user)


async def _until_answered(
    turns: Iterator[Any],
    key: tokens.SigningKey,
    user: str,
    request: messages.CreateRequestRequest,
    outcome: Outcome,
) -> str:
    """Return the id, or None if an open request exists, whoever created it."""
    while True:
        token, _ = tokens.mint(
            key, User(user, "s", "ada@example.org"), audience="survey", caller=GATEWAY
        )
        try:
            answer = await next(turns).CreateRequest(
                request, metadata=(("authorization", f"Bearer {token}"),), timeout=8
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                return ""
            outcome.repeats += 1
            await asyncio.sleep(0.05)
        else:
            return str(answer.id)


def _complete_all(sandbox: Sandbox, user: str) -> None:
    """Fill in the forms of a user, so that a new request is permitted."""
    rows = [
        {"record_id": row["record_id"], "form_complete": "2"}
        for row in sandbox.records(user)
        if row["form_complete"] != "2"
    ]
    if rows:
        sandbox.save(*rows)


@contextlib.contextmanager
def key_set(key: tokens.SigningKey) -> Iterator[str]:
    """Publish the key of user tokens like Auth; yields the URL."""
    document = json.dumps({"keys": [key.jwk()]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
