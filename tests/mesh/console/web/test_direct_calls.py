"""gRPC calls from a page: authorization, validation and the audit log."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.mesh.console.conftest import Running
from tests.mesh.console.web.conftest import BROWSER, FakeRunner, opened

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


@pytest.fixture
def runner(runner: FakeRunner) -> FakeRunner:
    """A runner whose calls all have the same outcome."""
    runner.results["call"] = OUTCOME
    return runner


async def test_made(controlled: Running, runner: FakeRunner, tmp_path: Path) -> None:
    """
    A call is made as requested; the audit log has caller and method, but not request or session.
    """
    given = {"method": "survey.GetLink", "request": {"record": "7"}, "session": SECRET}
    answer = await controlled.client.post(f"{controlled.url}/api/calls", json=given)

    assert OUTCOME == answer.json()
    assert [('{"record": "7"}', "gateway", SECRET)] == [
        (one["request"], one["identity"], one["session"]) for _, one in runner.received
    ]
    kept = (tmp_path / "orders.jsonl").read_text()
    assert "survey.GetLink" in kept
    assert SECRET not in kept
    assert "record" not in kept


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"method": "survey.Nothing"}, 409, "no method survey.Nothing"),
        ({}, 400, "method: Field required"),
        ({"method": "a.B", "request": []}, 400, "request: "),
        ({"method": "a.B", "identity": "../operator"}, 400, "identity: "),
        ({"method": "a.B", "request": {"a": "x" * 20_000}}, 413, "16384 bytes"),
    ],
)
async def test_rejected(controlled: Running, body: Any, status: int, message: str) -> None:
    """
    An invalid call is rejected with the reason.
    """
    answer = await controlled.client.post(f"{controlled.url}/api/calls", json=body)

    assert status == answer.status_code
    assert message in answer.json()["error"]["message"]


async def test_without_a_runner(running: Running) -> None:
    """
    Without a runner no method can be called, and the list says so.
    """
    listed = await running.get("calls")
    answer = await running.client.post(f"{running.url}/api/calls", json={"method": "a.B"})

    assert not listed["available"]
    assert {"record": "", "instrument": ""} == next(
        one["request"] for one in listed["items"] if one["rpc"] == "survey.GetLink"
    )
    assert 409 == answer.status_code


async def test_without_a_token(controlled: Running) -> None:
    """
    Calls require a sign-in.
    """
    given = {"method": "survey.GetLink"}
    headers = {"authorization": "Bearer wrong"}
    answer = await controlled.client.post(
        f"{controlled.url}/api/calls", json=given, headers=headers
    )

    assert 401 == answer.status_code


class TestPage:
    pytestmark = BROWSER

    async def test_call(self, browser: Browser, controlled: Running, runner: FakeRunner) -> None:
        """
        The page shows the outcome, the bytes on the wire and a link to the trace.
        """
        page, complaints = await opened(browser, controlled)
        await page.goto(f"{controlled.url}/call?method=survey.GetLink")
        request = page.get_by_role("textbox", name="Request as JSON")
        await expect(request).to_have_value('{\n  "record": "",\n  "instrument": ""\n}')
        await request.fill("not JSON")
        await page.get_by_role("button", name="Call", exact=True).click()
        await expect(page.get_by_role("alert")).to_contain_text("The request is not valid JSON")
        await request.fill('{"record": "7"}')
        await page.get_by_role("button", name="Call", exact=True).click()

        await expect(page.locator("main")).to_contain_text("There is no such request.")
        await expect(page.locator("main")).to_contain_text("0000  0a 01 37")
        trace = page.get_by_role("link", name="Trace", exact=True)
        await expect(trace).to_have_attribute("href", f"/traces/{'ab' * 16}")
        assert ['{"record": "7"}'] == [one["request"] for _, one in runner.received]
        assert [] == complaints
