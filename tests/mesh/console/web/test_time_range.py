"""The time range of every list: from and to, RFC 3339 or relative."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.mesh.console.conftest import Running
from tests.mesh.console.telemetry import Batch, logs, now

LISTS = ("overview", "incidents", "graph", "traces", "logs", "metrics", "series", "runs")
MINUTE = 60_000_000_000


def at(minutes: float) -> str:
    moment = datetime.now(UTC) + timedelta(minutes=minutes)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "given",
    [
        {"from": "-15m"},
        {"from": "-1d", "to": "-1h"},
        {"to": "now"},
        {"from": "2026-01-05T12:00:00Z", "to": "2026-01-05T13:00:00+01:30"},
    ],
    ids=["relative", "both", "now", "absolute"],
)
async def test_every_list(running: Running, path: str, given: dict[str, str]) -> None:
    """
    Every list takes from and to, RFC 3339 or relative (design, section 5).
    """
    given = dict(given)
    if given.get("from", "").startswith("2026"):
        given["to"] = "2026-01-05T13:00:00-01:30"
    found = await running.get(path, **given)

    assert isinstance(found["items"], list)


@pytest.mark.parametrize("path", ["overview", "incidents", "graph", "metrics"])
@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"from": "yesterday"}, "from"),
        ({"from": "15m"}, "from"),
        ({"from": "2026-01-01"}, "from"),
        ({"to": "-15"}, "to"),
        ({"from": "-5m", "to": "-1h"}, "from"),
        ({"from": "0001-01-01T00:00:00Z"}, "from"),
        ({"from": "-99d"}, "from"),
    ],
    ids=str,
)
async def test_bad_range(running: Running, path: str, given: dict[str, str], named: str) -> None:
    """
    A malformed or absurd range is a message that names the parameter.
    """
    answer = await running.client.get(f"{running.url}/api/{path}", params=given)

    assert 400 == answer.status_code, answer.text
    assert named in answer.json()["error"]["message"]


async def test_between(running: Running) -> None:
    """
    Traces and logs of a time range are only those within it.
    """
    batch = Batch()
    for minutes in (50, 30, 10):
        batch.span("survey", f"{minutes} minutes ago", start=now() - minutes * MINUTE)
    await running.take("traces", batch.request)
    for minutes in (50, 30, 10):
        text = f"{minutes} minutes ago"
        await running.take("logs", logs("survey", text, at=now() - minutes * MINUTE))

    for given in ({"from": "-40m", "to": "-20m"}, {"from": at(-40), "to": at(-20)}):
        found = await running.get("traces", **given)
        assert ["30 minutes ago"] == [one["name"] for one in found["items"]]
        found = await running.get("logs", **given)
        assert ["30 minutes ago"] == [one["message"] for one in found["items"]]


async def test_graph_at_a_time(running: Running) -> None:
    """
    The graph of a time range counts the calls within it; denials have a count and a date.
    """
    batch = Batch()
    parent: Any = batch.span("stranger", "client", kind=3, start=now() - 30 * MINUTE)
    batch.rpc(
        "survey",
        code="PERMISSION_DENIED",
        trace=parent.trace_id,
        parent=parent.span_id,
        start=now() - 30 * MINUTE,
    )
    await running.take("traces", batch.request)

    async def edge(**given: str) -> dict[str, Any]:
        items = (await running.get("graph", **given))["items"]
        return next(one for one in items if one["from"] == "stranger")

    then = await edge(**{"from": "-40m", "to": "-20m"})
    assert (True, 1, 1) == (then["observed"], then["calls"], then["refused"])
    later = await edge(**{"from": "-15m"})
    assert (False, 0, 1) == (later["observed"], later["calls"], later["refusedTotal"])
    told = datetime.fromisoformat(later["lastRefused"]).timestamp()
    assert 28 * 60 < time.time() - told < 33 * 60


async def test_named_by_route(running: Running) -> None:
    """
    A trace is never called "other": until the gateway's span arrives, it is outside the API; then
    it has the gateway's route, or none.
    """

    async def names() -> list[str]:
        return [one["name"] for one in (await running.get("traces"))["items"]]

    edges = {}
    for route in ("/signup", "other"):
        batch = Batch()
        edges[route] = batch.span(
            "gateway-envoy", "GET other", component="proxy", http__method="GET"
        )
        await running.take("traces", batch.request)
    assert ["GET (outside the API)"] * 2 == await names()

    for route, edge in edges.items():
        batch = Batch()
        ids = {"trace": edge.trace_id, "parent": edge.span_id}
        batch.span("gateway", f"GET {route}", **ids, http__request__method="GET")
        await running.take("traces", batch.request)
    assert {"GET /signup", "GET (no route)"} == set(await names())

    batch = Batch()
    batch.span("worker", "compare one with the other")
    await running.take("traces", batch.request)
    assert "compare one with the other" in await names()


async def test_rank(running: Running) -> None:
    """
    A trace shows the rank of its duration among those of the same name.
    """
    batch = Batch()
    slow = batch.span("auth", "same", ms=500)
    for ms in range(1, 100):
        batch.span("auth", "same", ms=ms)
    await running.take("traces", batch.request)

    rank = (await running.get(f"traces/{slow.trace_id.hex()}"))["rank"]
    assert (100, 0.99, 0.0) == (rank["among"], rank["slowerThan"], rank["fasterThan"])
    assert (51.0, 96.0, 500.0) == (rank["p50Ms"], rank["p95Ms"], rank["p99Ms"])
