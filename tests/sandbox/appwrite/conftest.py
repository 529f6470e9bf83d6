"""A running Appwrite sandbox and a mail catcher."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from mesh.chassis.testing import free_port

START_SECONDS = 60.0
PROJECT = "amarre"
KEY = "standard_test"


@dataclass(frozen=True)
class Appwrite:
    """The address of the sandbox."""

    url: str

    @property
    def endpoint(self) -> str:
        """The endpoint for official SDKs."""
        return f"{self.url}/v1"

    def control(self, path: str, method: str = "GET", **body: object) -> dict[str, str]:
        """Set a switch, move the clock or read the last link."""
        answer = httpx.request(method, f"{self.url}/_control/{path}", json=body, trust_env=False)
        answer.raise_for_status()
        found: dict[str, str] = answer.json()
        return found

    def last_link(self) -> dict[str, str]:
        """Return the query of the link in the most recent mail."""
        query = parse_qs(urlsplit(self.control("last-link")["link"]).query)
        return {name: values[0] for name, values in query.items()}

    def call(self, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
        """Send a request without an SDK; underscores in header names become hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named.setdefault("x-appwrite-project", PROJECT)
        return httpx.request(
            method, f"{self.endpoint}{path}", json=body, headers=named, trust_env=False
        )


def command(folder: Path, *more: str) -> list[str]:
    key = folder / "key"
    key.write_text(KEY)
    return [sys.executable, "-m", "sandbox.appwrite", "--key-file", str(key), *more]


@pytest.fixture
def appwrite(tmp_path: Path) -> Iterator[Appwrite]:
    """A running sandbox without users."""
    port = free_port()
    started = subprocess.Popen(command(tmp_path, "--listen", f"127.0.0.1:{port}"))
    try:
        running = Appwrite(f"http://127.0.0.1:{port}")
        wait(running, started)
        yield running
    finally:
        started.kill()
        started.wait()


def wait(running: Appwrite, started: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        try:
            running.control("health")
        except httpx.HTTPError:
            assert started.poll() is None
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the sandbox did not start")
