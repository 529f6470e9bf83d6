"""The alerts of Prometheus and Alertmanager, beside the console's own."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from mesh.chassis.testing import free_port
from tests.mesh.console.conftest import Running, Start


def told(name: str, state: str, severity: str = "page") -> dict[str, Any]:
    """Return an alert as Alertmanager tells it."""
    return {
        "labels": {"alertname": name, "severity": severity},
        "annotations": {"summary": f"{name}.", "runbook_url": f"docs/runbooks/{name}.md"},
        "startsAt": "2026-11-26T12:00:00Z",
        "status": {"state": state},
    }


def watched(name: str, state: str, severity: str = "page") -> dict[str, Any]:
    """Return an alert as Prometheus tells it."""
    alert = told(name, state, severity) | {"state": state, "activeAt": "2026-11-26T12:00:00Z"}
    return {key: alert[key] for key in ("labels", "annotations", "state", "activeAt")}


@contextlib.asynccontextmanager
async def serving(body: Any) -> AsyncIterator[str]:
    """Serve *body* as JSON, or as it is; yields the URL."""
    text = (body if isinstance(body, str) else json.dumps(body)).encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + text)
            await writer.drain()
        writer.close()

    port = free_port()
    async with await asyncio.start_server(answer, "127.0.0.1", port):
        yield f"http://127.0.0.1:{port}"


async def once(running: Running, holds: Callable[[Any], bool]) -> Any:
    """Return the overview once it is as wanted."""
    async with asyncio.timeout(10):
        while not holds(found := await running.get("overview")):
            await asyncio.sleep(0.02)
    return found


def asked(found: Any) -> bool:
    """Say whether every server has been asked."""
    return all(s["fault"] != "not asked yet" for s in found["alertServers"])


async def test_both(start: Start) -> None:
    """
    Alertmanager says what fires and what is silenced, Prometheus what may; each alert once.
    """
    firing = [
        told("Silent", "suppressed"),
        told("Slow", "active", "ticket"),
        told("Down", "active"),
    ]
    rules = {"data": {"alerts": [watched("Down", "firing"), watched("Soon", "pending")]}}
    async with (
        serving(firing) as alertmanager,
        serving(rules) as prometheus,
        start(console_alertmanager=alertmanager, console_prometheus=prometheus) as running,
    ):
        found = await once(running, asked)

    assert [
        ("Down", "firing", "alertmanager"),
        ("Slow", "firing", "alertmanager"),
        ("Soon", "pending", "prometheus"),
        ("Silent", "suppressed", "alertmanager"),
    ] == [(a["name"], a["state"], a["source"]) for a in found["serverAlerts"]]
    assert "docs/runbooks/Down.md" == found["serverAlerts"][0]["runbook"]
    assert ["", ""] == [server["fault"] for server in found["alertServers"]]


async def test_alertmanager_away(start: Start) -> None:
    """
    While Alertmanager is away its silence is told, and Prometheus says what fires.
    """
    rules = {"data": {"alerts": [watched("Down", "firing")]}}
    async with (
        serving(rules) as prometheus,
        start(
            console_alertmanager=f"http://127.0.0.1:{free_port()}", console_prometheus=prometheus
        ) as running,
    ):
        found = await once(running, asked)

    assert [("Down", "prometheus")] == [(a["name"], a["source"]) for a in found["serverAlerts"]]
    assert ["does not answer", ""] == [server["fault"] for server in found["alertServers"]]


@pytest.mark.parametrize("body", ["<html>", "[]", '{"data": {"alerts": [{}]}}', '{"data": null}'])
async def test_nonsense(start: Start, body: str) -> None:
    """
    A server that answers something else is said to; the console goes on.
    """
    async with serving(body) as url, start(console_prometheus=url) as running:
        found = await once(running, asked)

    assert found["alertServers"][0]["fault"].startswith("answers what cannot be read")
    assert [] == found["serverAlerts"]


async def test_none(running: Running) -> None:
    """
    Where neither is installed the console's own evaluation stands alone.
    """
    found = await running.get("overview")

    assert ([], []) == (found["alertServers"], found["serverAlerts"])
