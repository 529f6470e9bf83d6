"""
Polls the alerts of Prometheus and Alertmanager where they run.

They complement the console's own evaluation, which needs neither.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mesh.chassis.telemetry.clients import http_client
from mesh.console.incidents import runbooks
from mesh.console.intake.scraper import RETRY_SECONDS, TIMEOUT_SECONDS, fetch, phrase

EVERY_SECONDS = 5.0
MOST_ALERTS = 200
_SEVERITIES = {"critical": "page", "page": "page"}
"""Severities that page someone, in our rules and others'; every other severity is a ticket."""

log = structlog.get_logger("alerting")


@dataclass
class Watched:
    """One of the two servers and its last response; ``fault`` is empty while it responds."""

    name: str
    url: str
    path: str
    fault: str = "not polled yet"
    alerts: list[dict[str, Any]] = field(default_factory=list)


class Watch:
    """Polls the servers until cancelled, and keeps their last response."""

    def __init__(self, *, prometheus: str = "", alertmanager: str = "") -> None:
        self.servers = [
            Watched(name, url.rstrip("/"), path)
            for name, url, path in (
                ("alertmanager", alertmanager, "/api/v2/alerts"),
                ("prometheus", prometheus, "/api/v1/alerts"),
            )
            if url
        ]

    async def run(self) -> None:
        """Poll both at each interval until cancelled."""
        async with http_client(timeout=TIMEOUT_SECONDS) as client:
            while self.servers:
                await asyncio.gather(*(_ask(client, server) for server in self.servers))
                failing = any(server.fault for server in self.servers)
                await asyncio.sleep(RETRY_SECONDS if failing else EVERY_SECONDS)

    def alerts(self) -> list[dict[str, Any]]:
        """
        Return each alert once, worst first.

        Firing alerts come from Alertmanager, including silenced and inhibited ones; pending alerts
        come from Prometheus, and firing ones too while Alertmanager is unavailable.
        """
        found: dict[tuple[str, ...], dict[str, Any]] = {}
        for server in self.servers:
            for alert in server.alerts if not server.fault else ():
                key = tuple(sorted(f"{k}={v}" for k, v in alert["labels"].items()))
                found.setdefault(key, alert)
        order = {"firing": 0, "pending": 1, "suppressed": 2}
        return sorted(
            found.values(), key=lambda a: (order.get(a["state"], 3), a["severity"] != "page")
        )[:MOST_ALERTS]

    def described(self) -> list[dict[str, Any]]:
        """Return the servers as the API shows them."""
        return [{"name": s.name, "url": s.url, "fault": s.fault} for s in self.servers]


async def _ask(client: httpx.AsyncClient, server: Watched) -> None:
    fault = ""
    try:
        found = json.loads(await fetch(client, server.url + server.path))
        server.alerts = list(_alerts(server, found))
    except Exception as exc:  # One server never affects the other.
        fault = phrase(exc)
    if fault != server.fault:
        log.info("alerts", server=server.name, fault=fault or "none")
    server.fault = fault


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    labels: dict[str, str]
    annotations: dict[str, str] = {}


class _Status(BaseModel):
    state: str


class _OfAlertmanager(_Strict):
    starts_at: str = Field(alias="startsAt")
    status: _Status


class _OfPrometheus(_Strict):
    active_at: str = Field(alias="activeAt")
    state: str


def _alerts(server: Watched, found: Any) -> Iterator[dict[str, Any]]:
    """Yield the valid alerts in a response; invalid ones are skipped and logged."""
    ours = server.name == "alertmanager"
    items = found if ours else found["data"]["alerts"]
    if not isinstance(items, list):
        raise ValueError("no list of alerts")  # noqa: TRY004 - one kind of error for each response
    bad = 0
    for item in items:
        try:
            yield _from_alertmanager(server, item) if ours else _from_prometheus(server, item)
        except (ValidationError, KeyError):
            bad += 1
    if bad and bad == len(items):
        raise ValueError("no alert is valid")
    if bad:
        log.warning("invalid alerts skipped", server=server.name, count=bad)


def _from_alertmanager(server: Watched, item: Any) -> dict[str, Any]:
    found = _OfAlertmanager.model_validate(item)
    state = "firing" if found.status.state in {"active", "unprocessed"} else "suppressed"
    return _alert(server, state, found.starts_at, found)


def _from_prometheus(server: Watched, item: Any) -> dict[str, Any]:
    found = _OfPrometheus.model_validate(item)
    return _alert(server, found.state, found.active_at, found)


def _alert(server: Watched, state: str, since: str, found: _Strict) -> dict[str, Any]:
    labels, notes = found.labels, found.annotations
    return {
        "severity": _SEVERITIES.get(labels.get("severity", ""), "ticket"),
        "name": labels["alertname"],
        "message": notes.get("summary") or notes.get("description", ""),
        "runbook": runbooks.link(notes.get("runbook_url", "")),
        "state": state,
        "since": since,
        "source": server.name,
        "labels": labels,
    }
