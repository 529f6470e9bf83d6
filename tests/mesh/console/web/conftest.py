"""A real Chromium, and a console with a fake runner, for the tests of the pages."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

from mesh.control import ControlError, Progress, serve_actions
from mesh.local.control.audit_log import AuditLog
from tests.mesh.console.conftest import Running, Start

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
]
"""The marks of tests that need it."""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A real Chromium."""
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        await launched.close()


async def opened(browser: Browser, running: Running, **options: Any) -> tuple[Page, list[str]]:
    """Sign a browser in; return its page and the list of errors that occur in it."""
    page = await browser.new_page(**options)
    complaints = list[str]()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: complaints.append(message.text) if message.type == "error" else None,
    )
    code = (await running.client.post(f"{running.url}/api/codes")).json()
    await page.goto(f"{running.url}{code['path']}")
    await page.wait_for_url(f"{running.url}/")
    return page, complaints


class FakeRunner:
    """A runner that records actions in `received` and carries out none; *folder* is its state."""

    def __init__(self, folder: Path) -> None:
        self.received = list[tuple[str, dict[str, Any]]]()
        self.results = dict[str, Any]()
        self.audit_log = AuditLog(folder / "orders.jsonl")
        self.actions = {
            **dict.fromkeys(("fault list", "canary status", "exits"), self._list),
            "audit log": self.audit_log.last,
            **{
                name: self._action(name)
                for name in ("restart", "canary start", "fault add", "call")
            },
        }

    async def _list(self, arguments: dict[str, Any], progress: Progress) -> list[str]:
        return []

    def _action(self, name: str) -> Any:
        async def act(arguments: dict[str, Any], progress: Progress) -> Any:
            for kind, unknown in (("service", "nobody"), ("method", "survey.Nothing")):
                if arguments.get(kind) == unknown:
                    raise ControlError(f"There is no {kind} {unknown}.")
            self.received.append((name, arguments))
            progress("in progress …")
            return self.results.get(name, "done")

        return act


@pytest.fixture
def runner(tmp_path: Path) -> FakeRunner:
    """The runner of `controlled`."""
    return FakeRunner(tmp_path)


@pytest.fixture
async def controlled(start: Start, runner: FakeRunner, tmp_path: Path) -> AsyncIterator[Running]:
    """A console with a runner."""
    socket = tmp_path / "control.sock"
    async with (
        serve_actions(socket, runner.actions, runner.audit_log.record),
        start(console_control=socket) as found,
    ):
        yield found
