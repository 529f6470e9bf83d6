"""Control actions from the console: authorization, validation and the audit log."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.mesh.console.conftest import Running, Start
from tests.mesh.console.web.conftest import FakeRunner

OWN = {"sec-fetch-site": "same-origin"}
RESTART = {"order": "restart", "service": "survey"}


@contextlib.asynccontextmanager
async def browser(running: Running, who: str = "ada") -> AsyncIterator[httpx.AsyncClient]:
    """A client that signed in with a one-time link for *who*."""
    code = await running.client.post(f"{running.url}/api/codes", params={"who": who})
    async with httpx.AsyncClient(base_url=running.url, trust_env=False) as client:
        await client.get(code.json()["path"])
        yield client


async def test_audit_log(controlled: Running, runner: FakeRunner) -> None:
    """
    An action from a page is carried out and recorded with operator, time and outcome.
    """
    async with browser(controlled) as page:
        done = await page.post("/api/orders", json=RESTART, headers=OWN)
        refused = await page.post(
            "/api/orders", json={"order": "restart", "service": "nobody"}, headers=OWN
        )
        shown = (await page.get("/api/orders")).json()

    assert {"result": "done", "told": ["in progress …"]} == done.json()
    assert (409, "There is no service nobody.") == (
        refused.status_code,
        refused.json()["error"]["message"],
    )
    assert [("restart", {"service": "survey"})] == runner.received
    assert [
        ("ada (console)", "restart", "There is no service nobody."),
        ("ada (console)", "restart", ""),
    ] == [(item["by"], item["order"], item["fault"]) for item in shown["items"]]
    assert all(item["at"].startswith("20") for item in shown["items"])
    assert shown["available"]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no origin"),
        pytest.param({"sec-fetch-site": "cross-site"}, id="another site"),
        pytest.param({"sec-fetch-site": "same-site"}, id="same site"),
        pytest.param({"origin": "https://evil.test"}, id="another origin"),
    ],
)
async def test_other_sites(
    controlled: Running, runner: FakeRunner, headers: dict[str, str]
) -> None:
    """
    Another site cannot start an action with an operator's cookie.
    """
    async with browser(controlled) as page:
        answer = await page.post("/api/orders", json=RESTART, headers=headers)

    assert (403, "csrf_failed") == (answer.status_code, answer.json()["error"]["code"])
    assert [] == runner.received


async def test_unauthenticated(controlled: Running, runner: FakeRunner) -> None:
    """
    Actions and the audit log require a sign-in; the bearer of the token is recorded as such.
    """
    async with httpx.AsyncClient(base_url=controlled.url, trust_env=False) as stranger:
        forged = {"cookie": "amarre_console=99999999999999999.ada.0123", **OWN}
        assert 401 == (await stranger.post("/api/orders", json=RESTART, headers=OWN)).status_code
        assert 401 == (await stranger.post("/api/orders", json=RESTART, headers=forged)).status_code
        assert 401 == (await stranger.get("/api/orders")).status_code
    assert [] == runner.received
    answer = await controlled.client.post(f"{controlled.url}/api/orders", json=RESTART)
    assert 200 == answer.status_code
    shown = await controlled.get("orders")
    assert ["bearer of the token (console)"] == [item["by"] for item in shown["items"]]


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"order": "rotate", "root": True}, id="terminal only"),
        pytest.param({"order": "restart"}, id="no service"),
        pytest.param({"order": "restart", "service": "survey", "more": 1}, id="unknown field"),
        pytest.param({"order": "canary start", "service": "survey", "command": "sh"}, id="command"),
        pytest.param({"order": "canary start", "service": "survey", "weight": 101}, id="weight"),
        pytest.param(
            {"order": "fault add", "method": "survey.ListRequests", "percent": "x"},
            id="not a number",
        ),
        pytest.param([], id="not an object"),
    ],
)
async def test_invalid(controlled: Running, runner: FakeRunner, asked: Any) -> None:
    """
    Invalid actions never reach the runner, above all not a command chosen by a page.
    """
    answer = await controlled.client.post(f"{controlled.url}/api/orders", json=asked)

    assert 400 == answer.status_code
    assert [] == runner.received


async def test_body(controlled: Running, runner: FakeRunner) -> None:
    """
    A body of another content type, or above the size limit, is rejected.
    """
    url = f"{controlled.url}/api/orders"
    form = await controlled.client.post(url, data={"order": "restart", "service": "survey"})
    large = await controlled.client.post(url, json=RESTART | {"service": "s" * 5000})

    assert (400, 413) == (form.status_code, large.status_code)
    assert [] == runner.received


async def test_read_only(running: Running, start: Start, tmp_path: Path) -> None:
    """
    Without a runner the console is read-only, and says so.
    """
    shown = await running.get("orders")
    answer = await running.client.post(f"{running.url}/api/orders", json=RESTART)

    assert not shown["available"]
    assert "read-only" in shown["message"]
    assert (409, "steered_elsewhere") == (answer.status_code, answer.json()["error"]["code"])


async def test_runner_unavailable(start: Start, tmp_path: Path) -> None:
    """
    An unavailable runner is reported in a sentence.
    """
    async with start(console_control=tmp_path / "control.sock") as alone:
        shown = await alone.get("orders")

    assert not shown["available"]
    assert "accepts control actions" in shown["message"]
