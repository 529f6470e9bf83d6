"""Orders from the console: who may give them, what may be asked, and what is recorded."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mesh.control import ControlError, Progress, serve_actions
from mesh.local.control.audit_log import AuditLog
from tests.mesh.console.conftest import Running, Start

OWN = {"sec-fetch-site": "same-origin"}
RESTART = {"order": "restart", "service": "survey"}


class Mesh:
    """A runner in small: takes orders, keeps its journal, restarts nothing."""

    def __init__(self, folder: Path) -> None:
        self.taken: list[tuple[str, dict[str, Any]]] = []
        self.journal = AuditLog(folder / "orders.jsonl")
        self.actions = {
            "fault list": self._nothing,
            "canary status": self._nothing,
            "exits": self._nothing,
            "audit log": self.journal.last,
            **{name: self._taking(name) for name in ("restart", "canary start", "fault add")},
        }

    async def _nothing(self, asked: dict[str, Any], tell: Progress) -> list[str]:
        return []

    def _taking(self, name: str) -> Any:
        async def take(asked: dict[str, Any], tell: Progress) -> str:
            if asked.get("service") == "nobody":
                raise ControlError("There is no service nobody.")
            self.taken.append((name, asked))
            tell("survey is replaced …")
            return "done"

        return take


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


@pytest.fixture
async def steered(start: Start, mesh: Mesh, tmp_path: Path) -> AsyncIterator[Running]:
    """A console beside a runner."""
    socket = tmp_path / "control.sock"
    async with (
        serve_actions(socket, mesh.actions, mesh.journal.record),
        start(console_control=socket) as found,
    ):
        yield found


@contextlib.asynccontextmanager
async def browser(running: Running, who: str = "ada") -> AsyncIterator[httpx.AsyncClient]:
    """A client that came by a one-time link made for *who*."""
    code = await running.client.post(f"{running.url}/api/codes", params={"who": who})
    async with httpx.AsyncClient(base_url=running.url, trust_env=False) as client:
        await client.get(code.json()["path"])
        yield client


async def test_recorded(steered: Running, mesh: Mesh) -> None:
    """
    An order of a page is carried out and recorded with who gave it, when and how it ended.
    """
    async with browser(steered) as page:
        done = await page.post("/api/orders", json=RESTART, headers=OWN)
        refused = await page.post(
            "/api/orders", json={"order": "restart", "service": "nobody"}, headers=OWN
        )
        shown = (await page.get("/api/orders")).json()

    assert {"result": "done", "told": ["survey is replaced …"]} == done.json()
    assert (409, "There is no service nobody.") == (
        refused.status_code,
        refused.json()["error"]["message"],
    )
    assert [("restart", {"service": "survey"})] == mesh.taken
    assert [
        ("ada (console)", "restart", "There is no service nobody."),
        ("ada (console)", "restart", ""),
    ] == [(item["by"], item["order"], item["fault"]) for item in shown["items"]]
    assert all(item["at"].startswith("20") for item in shown["items"])
    assert shown["available"]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no proof"),
        pytest.param({"sec-fetch-site": "cross-site"}, id="another site"),
        pytest.param({"sec-fetch-site": "same-site"}, id="a sibling"),
        pytest.param({"origin": "https://evil.test"}, id="another origin"),
    ],
)
async def test_other_sites(steered: Running, mesh: Mesh, headers: dict[str, str]) -> None:
    """
    Another site gives no order with an operator's cookie.
    """
    async with browser(steered) as page:
        answer = await page.post("/api/orders", json=RESTART, headers=headers)

    assert (403, "csrf_failed") == (answer.status_code, answer.json()["error"]["code"])
    assert [] == mesh.taken


async def test_strangers(steered: Running, mesh: Mesh) -> None:
    """
    Without a sign-in nobody gives orders, nor sees who gave some; the token's bearer is named so.
    """
    async with httpx.AsyncClient(base_url=steered.url, trust_env=False) as stranger:
        forged = {"cookie": "amarre_console=99999999999999999.ada.0123", **OWN}
        assert 401 == (await stranger.post("/api/orders", json=RESTART, headers=OWN)).status_code
        assert 401 == (await stranger.post("/api/orders", json=RESTART, headers=forged)).status_code
        assert 401 == (await stranger.get("/api/orders")).status_code
    assert [] == mesh.taken
    answer = await steered.client.post(f"{steered.url}/api/orders", json=RESTART)
    assert 200 == answer.status_code
    shown = await steered.get("orders")
    assert ["bearer of the token (console)"] == [item["by"] for item in shown["items"]]


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"order": "rotate", "root": True}, id="not from here"),
        pytest.param({"order": "restart"}, id="no service"),
        pytest.param({"order": "restart", "service": "survey", "more": 1}, id="unknown field"),
        pytest.param(
            {"order": "canary start", "service": "survey", "command": "sh"}, id="a program"
        ),
        pytest.param({"order": "canary start", "service": "survey", "weight": 101}, id="weight"),
        pytest.param(
            {"order": "fault add", "method": "survey.ListRequests", "percent": "x"}, id="no number"
        ),
        pytest.param([], id="no object"),
    ],
)
async def test_impossible(steered: Running, mesh: Mesh, asked: Any) -> None:
    """
    What a page cannot ask for never reaches the runner; above all no program of its choice.
    """
    answer = await steered.client.post(f"{steered.url}/api/orders", json=asked)

    assert 400 == answer.status_code
    assert [] == mesh.taken


async def test_body(steered: Running, mesh: Mesh) -> None:
    """
    A body of another type, or a large one, is refused.
    """
    url = f"{steered.url}/api/orders"
    form = await steered.client.post(url, data={"order": "restart", "service": "survey"})
    large = await steered.client.post(url, json=RESTART | {"service": "s" * 5000})

    assert (400, 413) == (form.status_code, large.status_code)
    assert [] == mesh.taken


async def test_elsewhere(running: Running, start: Start, tmp_path: Path) -> None:
    """
    Without a runner the console says that the mesh is steered elsewhere, and takes no order.
    """
    shown = await running.get("orders")
    answer = await running.client.post(f"{running.url}/api/orders", json=RESTART)

    assert not shown["available"]
    assert "steered elsewhere" in shown["message"]
    assert (409, "steered_elsewhere") == (answer.status_code, answer.json()["error"]["code"])


async def test_runner_away(start: Start, tmp_path: Path) -> None:
    """
    A runner that is gone is told of in a sentence.
    """
    async with start(console_control=tmp_path / "control.sock") as alone:
        shown = await alone.get("orders")

    assert not shown["available"]
    assert "accepts control actions" in shown["message"]
