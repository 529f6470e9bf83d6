"""Alerts from Prometheus and Alertmanager, in addition to the console's own."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from mesh.chassis.testing import free_port
from mesh.console.incidents import alert_table, evaluator, runbooks
from tests.mesh.console.conftest import Running, Start


def told(name: str, state: str, severity: str = "page") -> dict[str, Any]:
    """Return an alert in the format of Alertmanager."""
    return {
        "labels": {"alertname": name, "severity": severity},
        "annotations": {
            "summary": f"{name}.",
            "runbook_url": f"https://wiki.example.net/{name}.md",
        },
        "startsAt": "2026-11-26T12:00:00Z",
        "status": {"state": state},
    }


def watched(name: str, state: str, severity: str = "page") -> dict[str, Any]:
    """Return an alert in the format of Prometheus."""
    alert = told(name, state, severity) | {"state": state, "activeAt": "2026-11-26T12:00:00Z"}
    return {key: alert[key] for key in ("labels", "annotations", "state", "activeAt")}


@contextlib.asynccontextmanager
async def serving(body: Any) -> AsyncIterator[str]:
    """Serve *body*, as JSON or raw; yields the URL."""
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
    """Return the overview once it satisfies the condition."""
    async with asyncio.timeout(10):
        while not holds(found := await running.get("overview")):
            await asyncio.sleep(0.02)
    return found


def asked(found: Any) -> bool:
    """Return whether every server has been polled."""
    return all(s["fault"] != "not polled yet" for s in found["alertServers"])


async def test_both(start: Start) -> None:
    """
    Firing and silenced alerts come from Alertmanager, pending ones from Prometheus, each once.
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
    assert "https://wiki.example.net/Down.md" == found["serverAlerts"][0]["runbook"]
    assert ["", ""] == [server["fault"] for server in found["alertServers"]]


async def test_alertmanager_unavailable(start: Start) -> None:
    """
    While Alertmanager is unavailable, that is reported, and Prometheus provides firing alerts.
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
    assert ["does not respond", ""] == [server["fault"] for server in found["alertServers"]]


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        *("<html>", "[]", '{"data": {"alerts": [{}]}}', '{"data": null}', DEEP, "", "\ufeff{}"),
        '{"data": {"alerts": {"labels": {}}}}',
        '{"data": {"alerts": "text"}}',
    ],
    ids=lambda body: body[:20],
)
async def test_nonsense(start: Start, body: str) -> None:
    """
    A server with an invalid response is reported; the console continues.
    """
    async with serving(body) as url, start(console_prometheus=url) as running:
        found = await once(running, asked)

    assert found["alertServers"][0]["fault"].startswith("returns an unreadable response")
    assert [] == found["serverAlerts"]
    assert [] == found["failingTasks"]


BAD_FIELDS: tuple[dict[str, Any], ...] = (
    *({"state": None}, {"state": {}}, {"state": 5}, {"labels": []}, {"labels": {"a": 5}}),
    *({"labels": {"severity": "page"}}, {"activeAt": 5}, {"annotations": {"runbook_url": {}}}),
)
BAD_ALERTS: tuple[Any, ...] = (
    *(None, 5, "text", [], {}),
    *(watched("Bad", "firing") | fields for fields in BAD_FIELDS),
)


async def test_bad_alerts(start: Start) -> None:
    """
    An alert that is not valid affects neither the others nor the other server's alerts.

    Fails if a state that is an object reaches the overview, or if a response that is nested too
    deeply ends the polling of both servers.
    """
    rules = {"data": {"alerts": [*BAD_ALERTS, watched("Good", "firing")]}}
    async with (
        serving(rules) as prometheus,
        serving(DEEP) as alertmanager,
        start(console_alertmanager=alertmanager, console_prometheus=prometheus) as running,
    ):
        found = await once(running, asked)

    assert ["Good"] == [alert["name"] for alert in found["serverAlerts"]]
    assert [True, False] == [bool(server["fault"]) for server in found["alertServers"]]
    assert [] == found["failingTasks"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://docs.example.org/amarre/runbooks/service-down.md", "/runbooks/service-down.md"),
        ("docs/runbooks/service-down.md", "/runbooks/service-down.md"),
        ("https://wiki.example.net/of-others", "https://wiki.example.net/of-others"),
        ("javascript:alert(1)", ""),
        ("", ""),
    ],
)
def test_runbook(url: str, shown: str) -> None:
    """
    Our runbooks open in the console, others at their URL; no link can run code.
    """
    assert shown == runbooks.link(url)


@pytest.mark.parametrize(
    ("name", "labels", "service"),
    [
        ("HostEjected", {"workload": "auth", "envoy_cluster_name": "survey"}, "survey"),
        ("HostEjected", {"workload": "survey", "envoy_cluster_name": "app"}, "survey"),
        ("HostCpuHigh", {"instance": "a:9100"}, "host"),
        ("RedcapFailing", {"workload": "survey"}, "redcap"),
    ],
)
def test_subject(name: str, labels: dict[str, str], service: str) -> None:
    """
    An alert of Prometheus is about the same service as that of the console.
    """
    found = {"state": "firing", "name": name, "labels": labels, "message": "", "source": "x"}
    served = evaluator._served(found)

    assert served is not None
    assert service == served.service


@pytest.mark.parametrize("severity", ["critical", "page"])
async def test_severity(start: Start, severity: str) -> None:
    """
    Pages come first, whatever the severity is called; all other alerts are tickets.
    """
    firing = [told("Slow", "active", "warning"), told("Down", "active", severity)]
    async with serving(firing) as url, start(console_alertmanager=url) as running:
        found = await once(running, asked)

    assert [("Down", "page"), ("Slow", "ticket")] == [
        (a["name"], a["severity"]) for a in found["serverAlerts"]
    ]


async def test_pages(running: Running) -> None:
    """
    Every runbook is served in the console's layout and links to others; nothing else is served.
    """
    pages = {path.name for path in runbooks.FOLDER.glob("*.md")}
    links = {rule.page for rule in alert_table.rules().values()}
    for name in pages:
        answer = await running.client.get(f"{running.url}/runbooks/{name}")
        assert 200 == answer.status_code
        assert re.search(r'<nav[^>]*>.*<article class="prose"><h1>', answer.text, re.DOTALL)
        links |= set(re.findall(r'href="([^"/]+\.md)"', answer.text))

    assert {"service-down.md", "redcap-failing.md"} <= links <= pages
    for name in ("gone.md", "..%2Fports.md", "README"):
        assert 404 == (await running.client.get(f"{running.url}/runbooks/{name}")).status_code


async def test_none(running: Running) -> None:
    """
    Without alert servers, only the console's own evaluation is used.
    """
    found = await running.get("overview")

    assert ([], []) == (found["alertServers"], found["serverAlerts"])
