"""Dashboards: every query is valid PromQL on existing series, every data source exists."""

import json
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
import yaml

from mesh.contract import policy
from mesh.render import dashboards, registry, signals
from mesh.render.rules import recording
from mesh.render.rules.pace import REAL
from tests.mesh.render.monitoring.promql import series_in

MESH = policy.load()
FILES = dashboards.render()
BOARDS: dict[str, dict[str, Any]] = {
    name: json.loads(text) for name, text in FILES.items() if name.startswith("dashboards/")
}
RECORDED = {rule["record"] for group in recording.groups(MESH, REAL) for rule in group["rules"]}
SOURCES = {
    source["uid"]: source["type"]
    for source in yaml.safe_load(FILES["provisioning/datasources/amarre.yaml"])["datasources"]
}
each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", ())


def queries(board: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in panels(board):
        for target in panel.get("targets", ()):
            yield panel["title"], target


@each_board
def test_queries(board: dict[str, Any]) -> None:
    """
    Every Prometheus query parses and reads only series that are emitted or recorded.
    """
    known = signals.metric_names() | RECORDED
    unknown = {
        title: series_in(target["expr"].replace("$__rate_interval", "5m")) - known
        for title, target in queries(board)
        if "prometheus" == target["datasource"]["uid"]
    }

    assert unknown != {}
    assert {} == {title: series for title, series in unknown.items() if series}


@each_board
def test_sources(board: dict[str, Any]) -> None:
    """
    Every panel and every query uses a provisioned data source.
    """
    named = [panel["datasource"] for panel in panels(board) if "row" != panel["type"]]
    named += [target["datasource"] for _, target in queries(board)]

    assert all(SOURCES[source["uid"]] == source["type"] for source in named)


@each_board
def test_layout(board: dict[str, Any]) -> None:
    """
    Panels have unique ids, stay within the grid and do not overlap.
    """
    shown = [panel for panel in panels(board) if "row" != panel["type"]]
    numbers = [panel["id"] for panel in shown]
    places = [panel["gridPos"] for panel in shown]

    assert len(set(numbers)) == len(numbers)
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert [] == [(a, b) for a, b in combinations(places, 2) if overlap(a, b)]


def overlap(a: dict[str, int], b: dict[str, int]) -> bool:
    return (
        a["x"] < b["x"] + b["w"]
        and b["x"] < a["x"] + a["w"]
        and a["y"] < b["y"] + b["h"]
        and b["y"] < a["y"] + a["h"]
    )


@pytest.mark.parametrize("service", MESH.services, ids=lambda service: str(service.name))
def test_objectives(service: policy.Service) -> None:
    """
    Every method has its row, with the objectives of its contract.
    """
    board = BOARDS[f"dashboards/amarre-service-{service.name}.json"]
    rows = [panel["title"] for panel in board["panels"] if "row" == panel["type"]]

    for method in service.methods:
        at = board["panels"].index(
            next(p for p in board["panels"] if method.name == p["title"] and "row" == p["type"])
        )
        limits = [limit(panel) for panel in board["panels"][at + 1 : at + 4]]
        assert method.name in rows
        assert 1 - method.objective.availability in limits
        if recording.is_timed(method):
            assert method.objective.latency.total_seconds() in limits


def limit(panel: dict[str, Any]) -> float | None:
    steps = panel.get("fieldConfig", {}).get("defaults", {}).get("thresholds", {}).get("steps", [])
    return steps[-1]["value"] if len(steps) > 1 else None


@pytest.mark.parametrize(
    "title",
    ["Error ratio", "Errors by reason", "Gateway errors by route", "Rejected calls by reason"],
)
def test_zero(title: str) -> None:
    """
    Without failures, failure panels show zero rather than no data: a series of failures does not
    exist before the first one.
    """
    found = [
        target["expr"]
        for board in BOARDS.values()
        for name, target in queries(board)
        if name == title and "ratio_rate" not in target["expr"]
    ]

    assert found
    assert [] == [expr for expr in found if "* 0" not in expr]


def test_links_between_signals() -> None:
    """
    Links lead from an exemplar to its trace, from a trace to its logs, and from a log line to its
    trace.
    """
    sources = yaml.safe_load(FILES["provisioning/datasources/amarre.yaml"])["datasources"]
    options = {source["uid"]: source["jsonData"] for source in sources}

    assert "tempo" == options["prometheus"]["exemplarTraceIdDestinations"][0]["datasourceUid"]
    assert "tempo" == options["loki"]["derivedFields"][0]["datasourceUid"]
    assert {"loki"} == {options[n]["tracesToLogsV2"]["datasourceUid"] for n in ("tempo", "jaeger")}


def test_names() -> None:
    """
    Dashboards have unique names.
    """
    assert len(BOARDS) == len({b["uid"] for b in BOARDS.values()})
    assert len(BOARDS) == len({b["title"] for b in BOARDS.values()})


def test_committed() -> None:
    """
    The committed dashboards are up to date with the contracts.
    """
    assert [] == registry.drift(FILES, registry.committed("dashboards"))
