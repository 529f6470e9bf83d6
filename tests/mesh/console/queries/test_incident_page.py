"""The incident page: contracts, calls and buttons of the affected methods."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from mesh.chassis.testing import free_port
from mesh.console.incidents import runbooks
from mesh.console.incidents.causes import affected
from mesh.console.settings import Target
from mesh.contract import policy
from tests.mesh.console.conftest import Running, Start

OFTEN = timedelta(seconds=0.1)


def incident(service: str, *effects: str, rpcs: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "rpcs": list(rpcs),
        "cause": {"service": service},
        "effects": [{"service": name} for name in effects],
    }


@pytest.mark.parametrize(
    ("found", "services"),
    [
        (incident("survey"), {"survey"}),
        (incident("redcap"), {"survey"}),
        (incident("identity"), {"auth"}),
        (incident("redcap", "health"), {"survey", "health"}),
        (incident("host"), set()),
    ],
)
def test_affected_services(found: dict[str, Any], services: set[str]) -> None:
    """
    A service affects its own methods, a dependency those of the services that call it.
    """
    every = {method.short_name for method in policy.load() if method.service in services}
    assert every == affected(policy.load(), found)


def test_named_methods() -> None:
    """
    Alerts that name methods of the cause affect only those; those of effects come beside its own.
    """
    named = incident("survey", rpcs=("survey.GetPdf",))
    assert {"survey.GetPdf"} == affected(policy.load(), named)

    found = affected(policy.load(), incident("auth", rpcs=("survey.GetPdf",)))
    assert {"survey.GetPdf", "auth.GetProfile"} < found
    assert "survey.ListRequests" not in found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("service-down.md", ["restart"]),
        ("canary-failing.md", ["canary abort"]),
        ("certificate-expiring.md", ["certs rotate", "restart"]),
        ("retry-storm.md", ["restart", "canary abort", "fault clear"]),
        ("redcap-failing.md", []),
        ("../README.md", []),
        ("", []),
    ],
)
def test_actions(name: str, expected: list[str]) -> None:
    """
    The buttons are the actions that the runbook mentions.
    """
    assert expected == runbooks.actions(name)


async def firing(running: Running) -> Any:
    while not (found := (await running.get("incidents"))["items"]):
        await asyncio.sleep(0.05)
    return found[0]


async def test_service_down(start: Start) -> None:
    """
    The page of a service that is down has its contract and the runbook's action.
    """
    target = Target(process="survey", url=f"http://127.0.0.1:{free_port()}/metrics")
    async with (
        start(console_scrape=(target,), console_scrape_every=OFTEN) as running,
        asyncio.timeout(20),
    ):
        listed = await firing(running)
        found = await running.get(f"incidents/{listed['id']}")
        unknown = await running.client.get(f"{running.url}/api/incidents/{'0' * 12}")

    assert ("ServiceDown", ["restart"]) == (found["cause"]["alert"], found["actions"])
    methods = {one["rpc"]: one for one in found["methods"]}
    assert {m.short_name for m in policy.load() if m.service == "survey"} == methods.keys()
    listing = methods["survey.ListRequests"]
    assert (["gateway"], 0, []) == (listing["callers"], listing["calls"], listing["exemplars"])
    assert {"deadlineMs", "budgetLeft", "budgetFailures", "source"} <= listing.keys()
    assert 404 == unknown.status_code
    assert "There is no incident with this id" in unknown.json()["error"]["message"]
