"""Calls of gRPC methods from a page: who may make them, what is asked, what is kept of them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from mesh.control import ControlError, Progress, serve_actions
from mesh.local.control.audit_log import AuditLog
from tests.mesh.console.conftest import Running, Start
from tests.mesh.console.web.conftest import BROWSER, opened

SECRET = "s3cr3t-of-a-session"
OUTCOME = {
    "code": "NOT_FOUND",
    "message": "There is no such request.",
    "facts": {"record": "7"},
    "duration_ms": 12.5,
    "deadline_ms": 5000.0,
    "retries": True,
    "trace_id": "ab" * 16,
    "request": {"bytes": 3, "wire": "0a0137"},
    "responses": [],
    "more": False,
}


class Runner:
    """A runner in small, whose calls all end the same way."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[dict[str, Any]] = []
        self.audit_log = AuditLog(folder / "orders.jsonl")
        names = ("fault list", "canary status", "exits")
        self.actions = {
            **dict.fromkeys(names, self._nothing),
            "audit log": self.audit_log.last,
            "call": self._call,
        }

    async def _nothing(self, asked: dict[str, Any], tell: Progress) -> list[str]:
        return []

    async def _call(self, asked: dict[str, Any], tell: Progress) -> dict[str, Any]:
        if asked["method"] == "survey.Nothing":
            raise ControlError("There is no method survey.Nothing.")
        self.asked.append(asked)
        return OUTCOME


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


@pytest.fixture
async def steered(start: Start, runner: Runner, tmp_path: Path) -> AsyncIterator[Running]:
    """A console beside a runner."""
    socket = tmp_path / "control.sock"
    async with (
        serve_actions(socket, runner.actions, runner.audit_log.record),
        start(console_control=socket) as found,
    ):
        yield found


async def test_made(steered: Running, runner: Runner, tmp_path: Path) -> None:
    """
    A call is made as asked; the audit log holds who called what, neither request nor session.
    """
    given = {"method": "survey.GetLink", "request": {"record": "7"}, "session": SECRET}
    answer = await steered.client.post(f"{steered.url}/api/calls", json=given)

    assert OUTCOME == answer.json()
    assert [('{"record": "7"}', "gateway", SECRET)] == [
        (one["request"], one["identity"], one["session"]) for one in runner.asked
    ]
    kept = (tmp_path / "orders.jsonl").read_text()
    assert "survey.GetLink" in kept
    assert SECRET not in kept
    assert "record" not in kept


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"method": "survey.Nothing"}, 409, "no method survey.Nothing"),
        ({}, 400, "method: Field required"),
        ({"method": "a.B", "request": []}, 400, "request: "),
        ({"method": "a.B", "identity": "../operator"}, 400, "identity: "),
        ({"method": "a.B", "request": {"a": "x" * 20_000}}, 413, "16384 bytes"),
    ],
)
async def test_refused(steered: Running, body: Any, status: int, said: str) -> None:
    """
    What cannot be called is refused with what is wrong.
    """
    answer = await steered.client.post(f"{steered.url}/api/calls", json=body)

    assert status == answer.status_code
    assert said in answer.json()["error"]["message"]


async def test_without_a_runner(running: Running) -> None:
    """
    Where no runner takes orders nothing can be called, and the list says so.
    """
    listed = await running.get("calls")
    answer = await running.client.post(f"{running.url}/api/calls", json={"method": "a.B"})

    assert not listed["available"]
    assert {"record": "", "instrument": ""} == next(
        one["request"] for one in listed["items"] if one["rpc"] == "survey.GetLink"
    )
    assert 409 == answer.status_code


async def test_without_a_token(steered: Running) -> None:
    """
    Only who is signed in calls.
    """
    given = {"method": "survey.GetLink"}
    headers = {"authorization": "Bearer wrong"}
    answer = await steered.client.post(f"{steered.url}/api/calls", json=given, headers=headers)

    assert 401 == answer.status_code


class TestPage:
    pytestmark = BROWSER

    async def test_call(self, browser: Browser, steered: Running, runner: Runner) -> None:
        """
        A page shows how the call went, what was on the wire and the way to its trace.
        """
        page, complaints = await opened(browser, steered)
        await page.goto(f"{steered.url}/call?method=survey.GetLink")
        request = page.get_by_role("textbox", name="Request as JSON")
        await expect(request).to_have_value('{\n  "record": "",\n  "instrument": ""\n}')
        await request.fill("no JSON")
        await page.get_by_role("button", name="Call", exact=True).click()
        await expect(page.get_by_role("alert")).to_contain_text("The request is not JSON")
        await request.fill('{"record": "7"}')
        await page.get_by_role("button", name="Call", exact=True).click()

        await expect(page.locator("main")).to_contain_text("There is no such request.")
        await expect(page.locator("main")).to_contain_text("0000  0a 01 37")
        trace = page.get_by_role("link", name="Trace", exact=True)
        await expect(trace).to_have_attribute("href", f"/traces/{'ab' * 16}")
        assert ['{"record": "7"}'] == [one["request"] for one in runner.asked]
        assert [] == complaints
