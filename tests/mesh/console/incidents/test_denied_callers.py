"""An incident about denied calls names the caller and the method."""

import pytest

from mesh.console.incidents.alert import Alert
from mesh.console.incidents.causes import Cause
from mesh.console.incidents.incident_log import IncidentLog
from tests.mesh.console.conftest import Running
from tests.mesh.console.incidents.test_alert_servers import once
from tests.mesh.console.telemetry import LIST, Batch

INTRUDER = "spiffe://amarre.local/ns/amarre/sa/health"
SUMMARY = (
    f"30 calls to survey.ListRequests by {INTRUDER} were denied; its contract does not name this"
    " caller."
)


@pytest.mark.parametrize(
    ("process", "facts"),
    [
        ("survey-envoy", {"component": "proxy"}),
        ("survey", {"amarre__caller": "health"}),
    ],
    ids=["by the proxy", "by the service"],
)
async def test_named(running: Running, process: str, facts: dict[str, str]) -> None:
    """
    The row names the SPIFFE id and the method, and links to the first denied call.
    """
    batch = Batch()
    denied = [
        batch.rpc(process, LIST, "PERMISSION_DENIED", amarre__caller_id=INTRUDER, **facts)
        for _ in range(30)
    ]
    # A user without permission, by a caller with permission, is not part of it.
    batch.rpc("survey", LIST, "PERMISSION_DENIED", amarre__caller="gateway")
    await running.take("traces", batch.request)
    found = await once(
        running, lambda found: found["incidents"] and found["incidents"][0]["traceId"]
    )

    (incident,) = found["incidents"]
    assert ("CallersRefused", "survey", SUMMARY) == tuple(
        incident["cause"][key] for key in ("alert", "service", "summary")
    )
    assert denied[0].trace_id.hex() == incident["traceId"]


async def test_namespaces(running: Running) -> None:
    """
    A caller from another namespace is not the workload of the same name, which may call.
    """
    strangers = [f"spiffe://amarre.local/ns/{name}/sa/gateway" for name in ("guests", "other")]
    batch = Batch()
    for caller in strangers * 20:
        batch.rpc(
            "survey-envoy", LIST, "PERMISSION_DENIED", amarre__caller_id=caller, component="proxy"
        )
    await running.take("traces", batch.request)
    found = await once(running, lambda found: found["incidents"])

    (incident,) = found["incidents"]
    assert incident["cause"]["summary"] == SUMMARY.replace("30", "40").replace(
        INTRUDER, " and ".join(strangers)
    )
    edges = (await running.get("graph"))["items"]
    assert {"guests/gateway", "other/gateway"} == {one["from"] for one in edges if one["refused"]}


def test_explanation_stays() -> None:
    """
    While only Prometheus still reports an alert, its incident keeps what the console found.
    """
    log = IncidentLog()
    ours = Alert("CallersRefused", "survey", SUMMARY, "survey.ListRequests")
    served = Alert("CallersRefused", "survey", "survey denies callers.", source="prometheus")
    for at, alert in enumerate((served, ours, served)):
        log.update([Cause(alert, ())], lambda *_: [], at)
    (incident,) = log.firing()

    said = f"survey denies callers. Last found by the console: {SUMMARY}"
    assert (said, ["survey.ListRequests"]) == (incident.alert.message, incident.rpcs)
    assert ("prometheus", False) == (incident.to_json()["source"], incident.has_recovered)


def test_recovered() -> None:
    """
    A cause that the console no longer finds has recovered, whatever Prometheus still reports; it is
    listed below the others.
    """
    log = IncidentLog()
    down = Alert("ServiceDown", "survey", "survey does not respond.", "survey")
    log.update([Cause(down, ())], lambda *_: [], 1)
    served = Alert("ServiceDown", "survey", "survey is or was down.", source="alertmanager")
    other = Alert("ClockWrong", "auth", "The clock of auth is 120 s ahead.", "auth")
    log.update([Cause(served, ()), Cause(other, ())], lambda *_: [], 2)

    assert [(False, "auth"), (True, "survey")] == [
        (one.to_json()["recovered"], one.alert.service) for one in log.firing()
    ]
