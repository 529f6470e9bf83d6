"""An engineer on call: the overview names service and cause of a fault, in one row, in a minute."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.conftest import WIDER, enter_console
from tests.live import running

pytestmark = [pytest.mark.browser, pytest.mark.envoy]
NOTICED_MS = 60_000
"""A fault is on the overview within a minute."""
Fault = Callable[["Mesh"], AbstractContextManager[None]]


class Mesh:
    """A running mesh whose processes and surroundings can be harmed."""

    def __init__(self, ready: Any) -> None:
        self.ready = ready

    def pid(self, name: str) -> int:
        """Return the process id of *name*."""
        return next(int(p["pid"]) for p in self.ready["processes"] if p["name"] == name)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A mesh of its own: others must not see what is done to it."""
    with running(tmp_path_factory.mktemp("on-call")) as ready:
        yield Mesh(ready)


@pytest.fixture
def page(browser: Browser, mesh: Mesh) -> Iterator[Page]:
    """The console's overview."""
    context = browser.new_context(locale="en-GB", viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    enter_console(mesh.ready, page)
    yield page
    context.close()


@contextlib.contextmanager
def hung(mesh: Mesh, name: str) -> Iterator[None]:
    pid = mesh.pid(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def killed(mesh: Mesh, name: str) -> Iterator[None]:
    os.kill(mesh.pid(name), signal.SIGKILL)
    yield


@contextlib.contextmanager
def wrong_clock(mesh: Mesh, name: str) -> Iterator[None]:
    """Telemetry of a process whose clock is two minutes ahead."""
    at = str(time.time_ns() + 120 * 10**9)
    attributes = [
        {"key": key, "value": {"stringValue": name}}
        for key in ("service.name", "service.instance.id")
    ]
    record = {"timeUnixNano": at, "severityText": "INFO", "body": {"stringValue": "tick"}}
    resource = {"resource": {"attributes": attributes}, "scopeLogs": [{"logRecords": [record]}]}
    url = f"{mesh.ready['urls']['otlp_http']}/v1/logs"
    httpx.post(url, json={"resourceLogs": [resource]}, trust_env=False).raise_for_status()
    yield


FAULTS: dict[str, tuple[Fault, str, str]] = {
    "a service is hung": (lambda m: hung(m, "survey"), "survey", "ServiceDown"),
    "a service is killed": (lambda m: killed(m, "health"), "health", "ServiceDown"),
    "a proxy is hung": (lambda m: hung(m, "auth-envoy"), "auth", "ProxyDown"),
    "a wrong clock": (lambda m: wrong_clock(m, "gateway"), "gateway", "ClockWrong"),
}
"""Each fault with the service and the alert that the overview names."""


@pytest.mark.parametrize("name", FAULTS)
def test_noticed(mesh: Mesh, page: Page, screenshots: Path, name: str) -> None:
    """
    Within a minute of a fault one row of the overview names its service and its cause; the row
    leads to a page with what changed, the contract, the runbook and the actions.
    """
    inject, service, alert = FAULTS[name]
    row = page.locator("[data-incident]").filter(has=page.get_by_role("link", name=service))
    with inject(mesh):
        found = row.filter(has_text=alert)
        expect(found).to_have_count(1, timeout=NOTICED_MS)
        assert 1 == row.count(), row.all_inner_texts()
        page.screenshot(path=screenshots / f"on-call-{name.replace(' ', '-')}.png", full_page=True)

        found.get_by_role("link", name=service, exact=True).click()
        expect(page.get_by_role("heading", name=f"{service}: {alert}")).to_be_visible()
        expect(page.get_by_role("heading", name="Changes before and during")).to_be_visible()
        expect(page.get_by_role("link", name="Runbook")).to_be_visible()
        assert not page.evaluate(WIDER)


def test_first_view(mesh: Mesh, page: Page) -> None:
    """
    The first view of the overview takes at most 150 KB.
    """
    sizes = page.evaluate(
        "performance.getEntries().map(one => one.transferSize ?? 0).reduce((a, b) => a + b, 0)"
    )
    assert 0 < sizes <= 150_000, json.dumps(sizes)
