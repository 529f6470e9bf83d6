"""Sequence diagrams match real traces, REDCap's call log and the configuration."""

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from mesh.contract import policy
from mesh.render.registry import ROOT
from tests.docs.diagrams import Diagram, Message, messages, of
from tests.integration.researcher import Researcher
from tests.live import running

PAGE = "docs/explanation/flows.md"
OBSERVABILITY = ROOT / "mesh/observability"
COMPOSE = ROOT / "mesh/deploy/compose"
SERVICES = {service.full_name: service.name for service in policy.load().services}
WAIT_SECONDS = 60.0
BACKGROUND = {"version", "metadata", "instrument"}
"""What Survey asks of REDCap on its own: readiness, and whether the study has changed."""
Span = dict[str, Any]


def drawn(diagram: Diagram) -> list[Message]:
    """Return the calls of a diagram in comparable form."""
    return _once([_bare(message) for message in messages(diagram)])


def with_one_less(diagram: Diagram) -> Iterator[Diagram]:
    """Yield *diagram* without one of its calls, for each of them."""
    lines = diagram.text.splitlines()
    for number, line in enumerate(lines):
        if messages(replace(diagram, text=line)):
            rest = lines[:number] + lines[number + 1 :]
            yield replace(diagram, text="\n".join(rest))


def _bare(message: Message) -> Message:
    """Reduce a label to what a span contains: nothing for a database, the verb for REDCap."""
    label = "" if message.callee.endswith("-database") else message.label.partition(":")[0]
    if message.callee == "redcap":
        label = label.partition(" ")[0]
    return Message(message.caller, message.callee, label)


def redcap_calls(diagram: Diagram) -> Counter[str]:
    """Return the REDCap calls of a diagram: content and action, ``record export``."""
    asked = [m.label.partition(":")[0] for m in messages(diagram) if m.callee == "redcap"]
    return Counter(label.partition(" ")[2] for label in asked)


def served_by_sandbox(mesh: dict[str, Any]) -> Counter[str]:
    """Return the REDCap calls since the last time, and reset them."""
    url = f"{mesh['urls']['sandbox']}/_control/calls"
    counts = httpx.get(url, trust_env=False).json()
    httpx.delete(url, trust_env=False)
    return Counter(
        {
            f"{content} {action}".removesuffix(" "): count
            for content, actions in counts.items()
            if content not in BACKGROUND
            for action, count in actions.items()
        }
    )


def _once(found: list[Message]) -> list[Message]:
    """Consecutive statements to one database are one message of a diagram."""
    return [
        message
        for before, message in zip([None, *found], found, strict=False)
        if not (message == before and message.callee.endswith("-database"))
    ]


def seen(spans: list[Span]) -> list[Message]:
    """Return the calls of a trace in order, without proxies."""
    found = []
    for span in sorted(spans, key=lambda one: one["start"]):
        name, service = span["name"], span["service"]
        area, _, rpc = name.partition("/")
        if span["proxy"]:
            continue
        if span["kind"] == "SERVER" and service == "gateway":
            found.append(Message("browser", service, name))
        elif span["kind"] == "CLIENT" and area in SERVICES:
            found.append(Message(service, SERVICES[area], rpc))
        elif span["kind"] == "CLIENT" and "db.system.name" in span["attributes"]:
            found.append(Message(service, f"{service}-database", ""))
        elif span["kind"] == "CLIENT":
            method, _, backend = name.partition(" ")
            found.append(Message(service, backend, method))
    return _once(found)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A whole mesh with its sidecars."""
    with running(tmp_path_factory.mktemp("flows")) as ready:
        yield ready


def trace_of(mesh: dict[str, Any], who: Researcher, method: str, path: str, **body: Any) -> Any:
    """Make a request and return the spans of its trace, once it is complete."""
    sent = f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"
    answer = who.send(method, path, headers={"traceparent": sent}, **body)
    assert answer.is_success, answer.text
    trace = answer.headers["traceresponse"].split("-")[1]
    url = f"{mesh['urls']['console']}/api/traces/{trace}"
    headers = {"authorization": f"Bearer {mesh['console']['token']}"}
    ends, before, same = time.monotonic() + WAIT_SECONDS, -1, 0
    while time.monotonic() < ends:
        found = httpx.get(url, headers=headers, trust_env=False)
        spans = found.json()["spans"] if found.is_success else []
        # Proxies and processes export on their own; each flow has spans of both.
        whole = {True, False} == {s["proxy"] for s in spans} and all(
            s["parentSpanId"] in {o["spanId"] for o in spans} for s in spans[1:]
        )
        same = same + 1 if len(spans) == before and whole else 0
        if same == 20:  # Batches of all processes are in: nothing came for five seconds.
            return spans
        before = len(spans)
        time.sleep(0.25)
    raise AssertionError(f"the trace of {method} {path} did not become whole")


def assert_by_sidecars(spans: list[Span], calls: list[Message]) -> None:
    """Check that each call between services passed two proxies."""
    for call in calls:
        if call.callee in SERVICES.values():
            proxies = [(s["service"], s["kind"]) for s in spans if s["proxy"]]
            assert (f"{call.caller}-envoy", "CLIENT") in proxies
            assert (f"{call.callee}-envoy", "SERVER") in proxies


class TestRequests:
    """The business flows, on the traces of a researcher."""

    def test_in_order(self, mesh: dict[str, Any]) -> None:
        """
        Signing up, creating and listing make the calls of their diagrams, in order, each between
        services through both sidecars; a diagram without one of them does not match.
        """
        flows = {
            "A researcher signs up": ("POST", "/api/v1/auth/signup"),
            "A researcher creates a request": ("POST", "/api/v1/surveys/requests"),
            "A researcher lists requests": ("GET", "/api/v1/surveys/requests"),
        }
        bodies: dict[str, Any] = {
            "A researcher signs up": {"json": {"email": "flows@example.org"}},
            "A researcher creates a request": {"json": {"consent": True}},
            "A researcher lists requests": {},
        }
        with Researcher(mesh, "flows@example.org") as ada:
            for title, (method, path) in flows.items():
                served_by_sandbox(mesh)
                spans = trace_of(mesh, ada, method, path, **bodies[title])
                calls = seen(spans)
                served = served_by_sandbox(mesh)

                diagram = of(PAGE, title)
                assert drawn(diagram) == calls, title
                assert redcap_calls(diagram) == served, title
                assert calls not in [drawn(damaged) for damaged in with_one_less(diagram)]
                assert_by_sidecars(spans, calls)
                if not ada.session:
                    ada.log_in(ada.mailed_link())


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


class TestTelemetry:
    """The flows of telemetry, in the committed configuration."""

    def test_metrics(self) -> None:
        """
        Prometheus scrapes the targets and paths of the diagram.
        """
        jobs = loaded(COMPOSE / "telemetry/prometheus.yaml")["scrape_configs"]
        asked = {
            Message("prometheus", target["labels"]["process"], job["metrics_path"])
            for job in jobs
            if job["job_name"] in {"amarre", "envoy"}
            for target in job["static_configs"]
        }

        assert asked == set(messages(of(PAGE, "Metrics")))
        own = loaded(OBSERVABILITY / "prometheus/prometheus.yaml")["global"]
        assert "15s" == own["scrape_interval"]

    def test_logs(self) -> None:
        """
        Every workload exports its logs to the collector, which sends them to Loki, as does Alloy.
        """
        services = loaded(COMPOSE / "compose.yaml")["services"]
        setting = "OTEL_EXPORTER_OTLP_ENDPOINT"
        site = (COMPOSE / "site.env.example").read_text()
        (endpoint,) = re.findall(r"^# AMARRE_OTLP_ENDPOINT='(.+)'$", site, re.MULTILINE)
        asked = {
            (name, urlsplit(endpoint).hostname)
            for name, service in services.items()
            if "${AMARRE_OTLP_ENDPOINT:-}" == service.get("environment", {}).get(setting)
        }
        collector = loaded(OBSERVABILITY / "collector/otel-collector.yaml")
        for exporter in collector["service"]["pipelines"]["logs"]["exporters"]:
            endpoint = collector["exporters"][exporter]["endpoint"]
            asked.add(("otel-collector", urlsplit(endpoint).hostname))
        alloy = (OBSERVABILITY / "alloy/config.alloy").read_text()
        (pushed,) = re.findall(r'url = "(.+)"', alloy)
        asked.add(("alloy", urlsplit(pushed).hostname))

        assert asked == {(m.caller, m.callee) for m in messages(of(PAGE, "Logs"))}
        assert {name for pair in asked for name in pair} <= set(services)

    def test_visualisation(self) -> None:
        """
        Grafana uses the data sources of the diagram, and Compose mounts them and the dashboards.
        """
        sources = loaded(OBSERVABILITY / "grafana/provisioning/datasources/amarre.yaml")
        asked = {("grafana", urlsplit(one["url"]).hostname) for one in sources["datasources"]}

        assert asked == {(m.caller, m.callee) for m in messages(of(PAGE, "Visualization"))}
        mounted = loaded(COMPOSE / "compose.yaml")["services"]["grafana"]["volumes"]
        assert any("grafana/provisioning:" in volume for volume in mounted)
        assert any("grafana/dashboards:" in volume for volume in mounted)

    def test_alerts(self) -> None:
        """
        Alerts are sent to Alertmanager, and from there by the channels of the diagram.
        """
        prometheus = loaded(COMPOSE / "telemetry/prometheus.yaml")["alerting"]["alertmanagers"]
        asked = {
            ("prometheus", target.partition(":")[0])
            for one in prometheus
            for static in one["static_configs"]
            for target in static["targets"]
        }
        receivers = loaded(OBSERVABILITY / "alertmanager/alertmanager.yaml")["receivers"]
        asked |= {
            ("alertmanager", kind.removesuffix("_configs"))
            for receiver in receivers
            for kind in receiver
            if kind.endswith("_configs")
        }

        assert asked == {(m.caller, m.callee) for m in messages(of(PAGE, "Alerts"))}
