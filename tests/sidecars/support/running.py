"""A whole mesh as users start it, and their actions."""

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from mesh.local.control.client import send_action
from mesh.local.data_folder import DataFolder
from mesh.local.processes.envoy import Admin
from tests.live import free_base

AMARRE = str(Path(sys.executable).with_name("amarre"))
START_SECONDS = 180.0
"""When a start counts as hung; on a busy machine it takes a minute."""
_ANSWER_SECONDS = 10.0
_BUSY = {429, 503, 504}
_MOST_AT_ONCE = 100


@dataclass
class Running:
    """A mesh that runs from *data*."""

    data: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def ready(self) -> dict[str, Any]:
        """The current ready file."""
        found: dict[str, Any] = json.loads((self.data / "ready.json").read_text())
        return found

    def pid(self, name: str) -> int:
        """Return the process id of the process *name*."""
        return next(int(p["pid"]) for p in self.ready["processes"] if p["name"] == name)

    def names(self) -> set[str]:
        """Return the names of all processes."""
        return {p["name"] for p in self.ready["processes"]}

    def admin(self, proxy: str) -> Admin:
        """Return the admin interface of the Envoy named *proxy*."""
        scraped = json.loads((self.data / "state" / "scraped.json").read_text())
        url = next(one["url"] for one in scraped if one["process"] == proxy)
        return Admin(url.rstrip("/").removeprefix("http://"))

    async def amarre(self, *arguments: str) -> str:
        """Run a command on this mesh; return its output, or fail."""
        status, text = await self.try_amarre(*arguments)
        assert 0 == status, text
        return text

    async def try_amarre(self, *arguments: str) -> tuple[int, str]:
        """Run a command on this mesh; return its status and output."""
        process = await asyncio.create_subprocess_exec(
            AMARRE,
            *arguments,
            *("--data", str(self.data)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        return process.returncode or 0, out.decode()

    async def canary(self) -> dict[str, Any]:
        """Return the state of Survey's canary."""
        data_folder = DataFolder(self.data)
        found: list[dict[str, Any]] = await send_action(
            data_folder, "canary status", lambda _: None, service="survey"
        )
        return found[0]

    def client(self) -> httpx.AsyncClient:
        """Return an unauthenticated, browser-like client."""
        app = self.ready["urls"]["app"]
        return httpx.AsyncClient(base_url=app, headers={"origin": app}, timeout=60, trust_env=False)

    async def signed_in(self) -> httpx.AsyncClient:
        """Return a closed client with the session of a new user, for `Load`."""
        async with self.client() as client:
            await self.sign_in(client)
        return client

    async def sign_in(self, client: httpx.AsyncClient) -> None:
        """Sign *client* in by magic link; a busy mesh is asked for it again."""
        email = f"{random.randrange(10**9)}@example.org"
        deadline = time.monotonic() + START_SECONDS
        asked = await client.post("/api/v1/auth/signup", json={"email": email})
        while asked.status_code in _BUSY and time.monotonic() < deadline:
            await asyncio.sleep(1)
            asked = await client.post("/api/v1/auth/signup", json={"email": email})
        assert asked.is_success, asked.text
        mine: list[dict[str, Any]] = []
        while not mine:
            assert time.monotonic() < deadline, f"no mail to {email}"
            mails = (await client.get(f"{self.ready['urls']['outbox']}/messages")).json()
            mine = [mail for mail in mails if email in str(mail["to"])]
            await asyncio.sleep(0.05)
        query = parse_qs(urlsplit(mine[0]["links"][0]).query)
        answer = await client.post(
            "/api/v1/auth/login",
            json={"userId": query["userId"][0], "secret": query["secret"][0]},
        )
        assert 200 == answer.status_code, answer.text
        # The cookie is for HTTPS alone; this client speaks HTTP to a loopback address.
        client.headers["cookie"] = answer.headers["set-cookie"].partition(";")[0]


class Load:
    """Requests at a steady rate while the body runs; fewer if the machine cannot keep up.

    Written to sockets by hand: an HTTP client of Python's would take a core for 200 a second.
    """

    def __init__(self, client: httpx.AsyncClient, path: str, per_second: float) -> None:
        """Request *path* like *client*."""
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        url = client.base_url
        self._address = url.host, url.port
        head = {"host": url.netloc.decode(), "cookie": client.headers["cookie"]}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        self._request = f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()
        self._pause = 1 / per_second
        self._slots = asyncio.Semaphore(_MOST_AT_ONCE)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Load":
        self._sending = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sending.cancel()
        await asyncio.gather(*self._calls)
        for _reader, writer in self._idle:
            writer.close()

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self._slots.acquire()
            task = asyncio.create_task(self._one())
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
            due = max(due, loop.time() - 1) + self._pause
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _one(self) -> None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                status, text = await self._ask()
        except (OSError, asyncio.IncompleteReadError) as error:
            self.answers[type(error).__name__] += 1
            self.failures.append(repr(error))
            return
        finally:
            self._slots.release()
        self.answers[status] += 1
        if status != "200":
            self.failures.append(text[:300])

    async def _ask(self) -> tuple[str, str]:
        """Send one request over an idle connection, or a new one; return status and body.

        A connection that idled may be closed by the server while the request is on its way. As
        browsers do, it is then sent once more over a new one, if nothing of an answer has come.

        Source:
            RFC 9112, section 9.3.1.
        """
        while self._idle:
            if answer := await self._ask_over(*self._idle.pop()):
                return answer
        answer = await self._ask_over(*await asyncio.open_connection(*self._address))
        if not answer:
            raise ConnectionResetError("closed before an answer")
        return answer

    async def _ask_over(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, str] | None:
        """Send the request over one connection; return None if no byte of a response arrives."""
        try:
            head = await self._head(reader, writer)
            return await self._rest(head, reader, writer) if head else None
        except BaseException:
            writer.close()
            raise

    async def _head(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Send the request; return the head of the response, empty if no byte of it arrives."""
        try:
            writer.write(self._request)
            return (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            writer.close()
            if getattr(error, "partial", b""):
                raise
            return ""

    async def _rest(
        self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, str]:
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await reader.readexactly(int(fields["content-length"]))
        if fields.get("connection") == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return head.split()[1], body.decode()


@contextmanager
def mesh(*options: str, within: Path | None = None, **variables: str) -> Iterator[Running]:
    """Start a mesh on free ports with *variables*, yield it once it is ready, stop it."""
    folder = Path(tempfile.mkdtemp(prefix="amarre-", dir=within))
    try:
        started = _start(folder, options, variables)
        try:
            yield started
        finally:
            if started.process.poll() is None:
                os.killpg(started.process.pid, signal.SIGTERM)
                started.process.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, options: tuple[str, ...], variables: Mapping[str, str]) -> Running:
    """Start a mesh; retry if another test takes a port between check and start."""
    log = folder / "up.log"
    for attempt in range(5):
        base = str(free_base())
        with log.open("wb") as output:
            process = subprocess.Popen(
                [AMARRE, "up", "--port-base", base, "--data", str(folder), *options],
                stdout=output,
                stderr=output,
                start_new_session=True,
                # tests/load covers admission; here a busy machine must not turn calls away.
                env={
                    **os.environ,
                    "AMARRE_RATE_LIMITS": "off",
                    "AMARRE_GATEWAY_QUEUE_TARGET": "PT10S",
                    "AMARRE_GATEWAY_QUEUE_LONGEST": "PT10S",
                    **variables,
                },
            )
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if (folder / "ready.json").exists():
                return Running(folder, process, log)
            time.sleep(0.05)
        if attempt == 4 or "in use" not in log.read_text():
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    raise AssertionError(f"the mesh does not start:\n{log.read_text()}")
