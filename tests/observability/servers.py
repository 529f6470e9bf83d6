"""Monitoring servers for tests: programs, a webhook, a load generator, waiting."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx

from mesh.chassis.testing import free_port
from tests.background import in_background
from tests.sidecars.support.running import Load, Running

WAIT_SECONDS = 180.0
LISTING = {"/api/v1/surveys/requests": 20.0}
"""Requests per second by path."""


def wait_for(what: str, holds: Callable[[], Any], said: Callable[[], Any] | None = None) -> Any:
    """Return the result of *holds* once it is true; *said* explains why it is not."""
    ends = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < ends:
        with contextlib.suppress(httpx.HTTPError):
            if found := holds():
                return found
        time.sleep(0.1)
    why = f": {said()}" if said else ""
    raise AssertionError(f"{what} did not happen within {WAIT_SECONDS:g} s{why}")


def get(url: str, **query: str) -> Any:
    answer = httpx.get(url, params=query, trust_env=False, timeout=5)
    answer.raise_for_status()
    return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text


@contextlib.contextmanager
def running(*command: str, log: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program in its own process group, and stop it."""
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, text=True, start_new_session=True, **options
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=10)


@contextlib.contextmanager
def pager(
    refuses: Callable[[dict[str, Any]], bool] = lambda _: False,
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The on-call webhook: its URL, and the received requests that it does not refuse."""
    taken: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            page = json.loads(self.rfile.read(int(self.headers["content-length"])))
            refused = refuses(page)
            if not refused:
                taken.append(page)
            self.send_response(403 if refused else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def researcher_at_work(
    running_one: Running, rates: Mapping[str, float] = LISTING
) -> Iterator[None]:
    """A signed-in user who requests each path of *rates* so many times a second, from a thread."""
    client = asyncio.run(running_one.signed_in())

    async def work(done: Event) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for path, rate in rates.items():
                await stack.enter_async_context(Load(client, path, rate))
            await asyncio.to_thread(done.wait)

    with in_background(lambda done: asyncio.run(work(done))):
        yield
