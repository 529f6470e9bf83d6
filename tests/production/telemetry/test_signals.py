"""The telemetry of a researcher's whole flow."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any

from tests.observability.servers import get, wait_for
from tests.production.telemetry.site import OBSERVABILITY, PERSON, Site

PERSONAL = {
    "address": r"[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+\.[a-z]{2,}",
    "name": rf"{PERSON}|Lovelace|Noether|Göttingen|secretword",
    "token": r"eyJ[\w-]{10,}\.[\w-]+|\b[0-9A-F]{32}\b|[Bb]earer ",
    "cookie": r"__Host-amarre|amarre_session",
    "link": r"secret=|userId=",
}
NOT_HERE = ("node_", "amarre_backup", 'backend="appwrite"', "envoy_cluster_outlier", "certificate")
"""Series of programs that do not run here: node exporter, backups, Appwrite; certificates are
held by the proxies."""


def test_start(site: Site) -> None:
    """
    No program warns about deprecated names or anything else in its files.
    """
    deprecated = re.compile(r"deprecat", re.I)
    for name in ("collector", "jaeger", "prometheus", "alertmanager"):
        lines = site.log(name).splitlines()
        assert [] == [line for line in lines if deprecated.search(line)], name
    warned = [line for line in site.log("collector").splitlines() if "\twarn\t" in line]
    # It binds to the addresses that it is given, loopback or not.
    assert [] == [line for line in warned if "0.0.0.0" not in line]


def test_targets(site: Site) -> None:
    """
    Every process, every proxy and every monitoring program is scraped.
    """
    wait_for(
        "scrapes",
        lambda: site.query("up") and not site.query('up{job!="node"} == 0'),
    )
    found = {r["metric"]["process"] for r in site.query('up{job!="node"} == 1')}

    assert {"gateway", "gateway-envoy", "survey", "survey-envoy", "alertmanager"} <= found


def test_each_series_once(site: Site) -> None:
    """
    Each series exists once: scraped metrics are not also pushed.
    """
    for name in ("amarre_rpc_server_duration_seconds_count", "amarre_http_server_in_flight"):
        once = "process, service, method, code, reason"
        assert site.query(name)
        assert [] == site.query(f"count by ({once}) ({name}) > 1")
        assert {"amarre"} == {r["metric"]["job"] for r in site.query(name)}


def test_series_of_envoy(site: Site) -> None:
    """
    Only the Envoy series in use are stored.
    """
    (count,) = site.query('count({job="envoy",__name__=~"envoy_.+"})')
    (of_amarre,) = site.query('count({job="amarre"})')

    assert 0 < int(count["value"][1]) < int(of_amarre["value"][1])


def test_one_trace(site: Site) -> None:
    """
    From the browser's request to REDCap, there is one trace with one root.
    """

    def whole() -> bool:
        return any(reaches_redcap(trace) for trace in site.traces("POST redcap"))

    wait_for("a trace from the edge to REDCap", whole)


def test_service_graph(site: Site) -> None:
    """
    Callers and services are edges of Jaeger's graph; spans name REDCap and mail as their peers, for
    backends whose graphs include systems without spans.
    """

    def edges() -> set[tuple[str, str]]:
        url = f"http://{site.at['query']}/api/dependencies"
        answer = get(url, endTs=str(int(time.time() * 1000)), lookback="3600000")
        return {(edge["parent"], edge["child"]) for edge in answer["data"]}

    def peers() -> set[str]:
        pattern = r'"service\.peer\.name","value":\{"stringValue":"([^"]+)"'
        return set(re.findall(pattern, site.sent("traces").read_text()))

    wait_for("the graph", lambda: {("gateway-envoy", "gateway")} <= edges())
    wait_for("the peers", lambda: {"redcap", "outbox"} <= peers(), said=peers)


def test_nothing_personal(site: Site) -> None:
    """
    No exported span, log line or series contains an address, a name, a token, a cookie or a link.
    """
    texts = {"series": json.dumps(site.query('{job=~"amarre|envoy"}'), ensure_ascii=False)}
    for name in ("traces", "logs"):
        wait_for(name, site.sent(name).is_file)
        texts[name] = site.sent(name).read_text()
    for name, text in texts.items():
        assert len(text) > 10_000
        found = {kind: re.findall(pattern, text)[:3] for kind, pattern in PERSONAL.items()}
        assert {} == {kind: hits for kind, hits in found.items() if hits}, name


def test_lines(site: Site) -> None:
    """
    Exported log lines have the service that wrote them, and failures a trace.
    """
    services = set()
    for line in site.sent("logs").read_text().splitlines():
        for entry in json.loads(line)["resourceLogs"]:
            for attribute in entry["resource"]["attributes"]:
                if attribute["key"] == "service.name":
                    services.add(attribute["value"]["stringValue"])

    assert {"gateway", "auth", "survey"} <= services


def test_dashboards(site: Site) -> None:
    """
    After traffic, every dashboard query returns data; failures that did not occur are zero.
    Excluded are programs that do not run here, and methods without calls.
    """

    def empty() -> dict[str, str]:
        return dict(without_data(site))

    wait_for("data for every query", lambda: not empty(), said=empty)


def without_data(site: Site) -> Iterator[tuple[str, str]]:
    """Yield the panels whose query returns nothing, with the query."""
    for file in sorted((OBSERVABILITY / "grafana/dashboards").glob("*.json")):
        for title, expression in queries(json.loads(file.read_text())):
            expression = expression.replace("$__rate_interval", "1m").replace("[5m]", "[1m]")
            method = re.search(r'method="(\w+)"', expression)
            if any(word in expression for word in NOT_HERE) or site.query(expression):
                continue
            called = f'service_method:amarre_calls:rate5m{{method="{method[1]}"}}' if method else ""
            if not method or site.query(f"{called} > 0"):
                yield f"{file.stem}: {title}", expression


def queries(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield title and PromQL of every panel of *board*."""
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            if target["datasource"]["uid"] == "prometheus":
                yield panel["title"], target["expr"]


def reaches_redcap(trace: dict[str, Any]) -> bool:
    """Return whether *trace* has one root, at the edge, and includes every hop to REDCap."""
    ids = {span["spanID"] for span in trace["spans"]}
    roots = [
        span
        for span in trace["spans"]
        if not any(reference["spanID"] in ids for reference in span["references"])
    ]
    services = {process["serviceName"] for process in trace["processes"].values()}
    hops = {"gateway-envoy", "gateway", "survey-envoy", "survey"}
    return hops <= services and ["gateway-envoy"] == [
        trace["processes"][root["processID"]]["serviceName"] for root in roots
    ]
