"""Collector, Jaeger, Prometheus 3 and Alertmanager with the rendered files and live traffic."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Set
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from mesh import topology
from mesh.chassis.testing import free_port
from mesh.contract import policy
from mesh.render import alertmanager, collector, registry, rules
from mesh.render.rules import scraping
from mesh.render.rules.pace import Pace
from tests.background import in_background
from tests.integration.researcher import whole_way
from tests.observability.servers import get, pager, researcher_at_work, running, wait_for
from tests.production.programs import MissingProgramError, program
from tests.sidecars.running import Running, mesh

PACE = Pace(15)
"""Fifteen times faster than in production: a window of 5 minutes takes 20 seconds."""
OBSERVABILITY = registry.ROOT / "mesh/observability"
NAMES = ("otelcol", "jaeger", "prometheus", "promtool", "alertmanager", "amtool")
ALERT = "ErrorsAboveFivePercent"
SLOW = {"LatencyBudgetBurnsFast", "MethodAboveOneSecond"}
"""Pages about latency: on a busy machine they are right, and another cause."""
VISIT_SECONDS = 5.0
PERSON = "planted.canary"
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


def programs() -> tuple[dict[str, Path], str]:
    """Return the programs, or a sentence with the missing ones."""
    try:
        return {name: program(name, "telemetry.tar.xz") for name in NAMES}, ""
    except MissingProgramError as missing:
        return {}, str(missing)


PROGRAMS, MISSING = programs()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


class Site:
    """A mesh that sends its telemetry to the real programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = [
            *("grpc", "http", "health", "own", "jaeger", "jaeger-http", "query", "query-grpc"),
            *("jaeger-health", "prometheus", "alertmanager"),
        ]
        self.at = {name: f"127.0.0.1:{free_port()}" for name in names}
        self.paged: list[dict[str, Any]] = []
        self.mesh: Running
        self.webhook = ""

    def collector(self) -> list[str]:
        """Return the command: the rendered file, and a second one that changes addresses."""
        here = {
            "extensions": {"health_check": {"endpoint": self.at["health"]}},
            "receivers": {
                "otlp": {
                    "protocols": {
                        "grpc": {"endpoint": self.at["grpc"]},
                        "http": {"endpoint": self.at["http"]},
                    }
                }
            },
            "processors": {"tail_sampling": {"decision_wait": "1s"}},
            "exporters": {
                "otlp_grpc/jaeger": {"endpoint": self.at["jaeger"]},
                **{f"file/{s}": {"path": str(self.sent(s))} for s in ("traces", "logs")},
                "debug": {},
            },
            "service": {
                "telemetry": {"metrics": {"readers": [own_metrics(self.at["own"])]}},
                "pipelines": {
                    "traces": {"exporters": ["otlp_grpc/jaeger", "file/traces"]},
                    "logs": {"exporters": ["file/logs"]},
                    "metrics": {"exporters": ["debug"]},
                },
            },
        }
        moved = self.folder / "collector-here.yaml"
        moved.write_text(yaml.safe_dump(here))
        committed = OBSERVABILITY / "collector/otel-collector.yaml"
        return [str(PROGRAMS["otelcol"]), "--config", str(committed), "--config", str(moved)]

    def sent(self, signal_name: str) -> Path:
        """Return the file with the collector's exports."""
        return self.folder / f"{signal_name}.jsonl"

    def jaeger(self) -> list[str]:
        """Return the command: the committed file with other addresses and folders."""
        content = yaml.safe_load((OBSERVABILITY / "jaeger/jaeger.yaml").read_text())
        extensions = content["extensions"]
        extensions["healthcheckv2"]["http"]["endpoint"] = self.at["jaeger-health"]
        folders = extensions["jaeger_storage"]["backends"]["amarre"]["badger"]["directories"]
        for name in folders:
            folders[name] = str(self.folder / "jaeger" / name)
            Path(folders[name]).mkdir(parents=True)
        extensions["jaeger_query"] |= {
            "http": {"endpoint": self.at["query"]},
            "grpc": {"endpoint": self.at["query-grpc"]},
        }
        protocols = content["receivers"]["otlp"]["protocols"]
        protocols["grpc"]["endpoint"] = self.at["jaeger"]
        protocols["http"]["endpoint"] = self.at["jaeger-http"]
        content["service"]["telemetry"] = {"metrics": {"level": "none"}}
        path = self.folder / "jaeger.yaml"
        path.write_text(yaml.safe_dump(content))
        return [str(PROGRAMS["jaeger"]), "--config", str(path)]

    def watch(self, patient: Running) -> dict[str, list[str]]:
        """Write the files of Prometheus and Alertmanager for *patient*; return their commands."""
        self.mesh = patient
        base = int(urlsplit(patient.ready["urls"]["app"]).port or 0)
        delivery = alertmanager.Delivery(
            f"127.0.0.1:{base + topology.SMTP}", "example.org", self.webhook, self.webhook
        )
        watched = {
            "prometheus": self.at["prometheus"],
            "alertmanager": self.at["alertmanager"],
            "otel-collector": self.at["own"],
        }
        registry.write(
            {
                **rules.rule_files(policy.load(), PACE, watchers=True),
                "prometheus.yaml": scraping.configuration(
                    scraping.targets(base),
                    alertmanager=self.at["alertmanager"],
                    pace=PACE,
                    watched=watched,
                ),
                "alertmanager.yaml": alertmanager.configuration(delivery, PACE),
                alertmanager.TEMPLATES: alertmanager.texts(),
            },
            self.folder,
        )
        (self.folder / "applications").mkdir()
        return {
            "alertmanager": [
                str(PROGRAMS["alertmanager"]),
                f"--config.file={self.folder}/alertmanager.yaml",
                f"--storage.path={self.folder}/alertmanager",
                f"--web.listen-address={self.at['alertmanager']}",
                "--cluster.listen-address=",
            ],
            "prometheus": [
                str(PROGRAMS["prometheus"]),
                f"--config.file={self.folder}/prometheus.yaml",
                f"--storage.tsdb.path={self.folder}/prometheus",
                f"--web.listen-address={self.at['prometheus']}",
                "--enable-feature=exemplar-storage",
                "--web.enable-remote-write-receiver",
            ],
        }

    def log(self, name: str) -> str:
        """Return the log of the program *name*."""
        return (self.folder / f"{name}.log").read_text()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of a query to Prometheus."""
        url = f"http://{self.at['prometheus']}/api/v1/query"
        result: list[dict[str, Any]] = get(url, query=expression)["data"]["result"]
        return result

    def traces(self, operation: str) -> list[dict[str, Any]]:
        """Return the traces in Jaeger with *operation* of survey."""
        url = f"http://{self.at['query']}/api/traces"
        found: list[dict[str, Any]] = get(
            url, service="survey", operation=operation, lookback="1h", limit="20"
        )["data"]
        return found

    def pages(self, status: str, since: int = 0) -> set[str]:
        """Return the names of the alerts sent to the webhook, except heartbeats."""
        return {
            alert["labels"]["alertname"]
            for page in self.paged[since:]
            if page["receiver"] != "heartbeat"
            for alert in page["alerts"]
            if alert["status"] == status
        }

    def subjects(self) -> list[str]:
        """Return the subjects of all mails."""
        mails = get(f"{self.mesh.ready['urls']['outbox']}/messages")
        return [mail["subject"] for mail in mails]


def own_metrics(address: str) -> dict[str, Any]:
    """Return the address of the collector's own metrics."""
    host, _, port = address.rpartition(":")
    return {"pull": {"exporter": {"prometheus": {"host": host, "port": int(port)}}}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything runs, and one researcher has completed the whole flow."""
    made = Site(tmp_path_factory.mktemp("telemetry"))
    with ExitStack() as stack:
        made.webhook, made.paged = stack.enter_context(pager())
        for name, command in (("jaeger", made.jaeger()), ("collector", made.collector())):
            stack.enter_context(running(*command, log=made.folder / f"{name}.log"))
            health = f"{made.at['jaeger-health']}/status" if name == "jaeger" else made.at["health"]
            wait_for(name, partial(get, f"http://{health}"))
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{made.at['grpc']}",
            "OTEL_METRICS_EXPORTER": "none",
        }
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in variables.items():
            patch.setenv(name, value)
        patient = stack.enter_context(mesh())
        for name, command in made.watch(patient).items():
            stack.enter_context(running(*command, log=made.folder / f"{name}.log"))
        whole_way(patient.ready, f"{PERSON}@example.org")
        visit(patient)
        stack.enter_context(researcher_at_work(patient))
        stack.enter_context(visitors(patient))
        wait_for("the first measurement", lambda: made.query("amarre_http_server_in_flight"))
        yield made


def visit(patient: Running) -> None:
    """Request unknown paths with personal data in path and query."""
    app = patient.ready["urls"]["app"]
    personal = ("/?secretword=planted", f"/api/v1/{PERSON}@example.org")
    for path in (*personal, "/login", "/api/v1/health/status"):
        httpx.get(f"{app}{path}", trust_env=False, timeout=30)


@contextmanager
def visitors(patient: Running) -> Iterator[None]:
    """A client without a session that retries every few seconds, whatever the response."""

    def come_back(done: Event) -> None:
        while not done.wait(VISIT_SECONDS):
            with suppress(httpx.TransportError):
                visit(patient)

    with in_background(come_back):
        yield


class TestFiles:
    """The rendered files, validated by the programs that use them."""

    @pytest.mark.parametrize(
        "arguments",
        [
            ("otelcol", "validate", "--config", "collector/otel-collector.yaml"),
            ("jaeger", "validate", "--config", "jaeger/jaeger.yaml"),
            ("promtool", "check", "rules", "--lint=all", "--lint-fatal", "prometheus/rules/*"),
            ("promtool", "test", "rules", "prometheus/tests/*"),
            ("amtool", "check-config", "alertmanager/alertmanager.yaml"),
        ],
        ids=" ".join,
    )
    def test_accepted(self, arguments: tuple[str, ...]) -> None:
        """
        The program accepts the committed file.
        """
        name, *rest = arguments
        files = [str(p) for a in rest if "*" in a for p in sorted(OBSERVABILITY.glob(a))]
        command = [str(PROGRAMS[name]), *(a for a in rest if "*" not in a), *files]
        done = subprocess.run(
            command, cwd=OBSERVABILITY, capture_output=True, text=True, check=False, timeout=300
        )

        assert 0 == done.returncode, done.stdout + done.stderr

    def test_prometheus(self, tmp_path: Path) -> None:
        """
        Prometheus accepts the configurations of a laptop and of Compose.
        """
        for file in (
            OBSERVABILITY / "prometheus/prometheus.yaml",
            registry.committed("compose") / "telemetry/prometheus.yaml",
        ):
            folder = tmp_path / file.parent.name
            folder.mkdir()
            for name in ("rules", "applications"):
                shutil.copytree(OBSERVABILITY / "prometheus" / name, folder / name)
            shutil.copy2(file, folder)
            command = [str(PROGRAMS["promtool"]), "check", "config", str(folder / file.name)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            assert 0 == done.returncode, done.stdout + done.stderr


class TestSignals:
    """The telemetry of a researcher's whole flow."""

    def test_start(self, site: Site) -> None:
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

    def test_targets(self, site: Site) -> None:
        """
        Every process, every proxy and every monitoring program is scraped.
        """
        wait_for(
            "scrapes",
            lambda: site.query("up") and not site.query('up{job!="node"} == 0'),
        )
        found = {r["metric"]["process"] for r in site.query('up{job!="node"} == 1')}

        assert {"gateway", "gateway-envoy", "survey", "survey-envoy", "alertmanager"} <= found

    def test_each_series_once(self, site: Site) -> None:
        """
        Each series exists once: scraped metrics are not also pushed.
        """
        for name in ("amarre_rpc_server_duration_seconds_count", "amarre_http_server_in_flight"):
            once = "process, service, method, code, reason"
            assert site.query(name)
            assert [] == site.query(f"count by ({once}) ({name}) > 1")
            assert {"amarre"} == {r["metric"]["job"] for r in site.query(name)}

    def test_series_of_envoy(self, site: Site) -> None:
        """
        Only the Envoy series in use are stored.
        """
        (count,) = site.query('count({job="envoy",__name__=~"envoy_.+"})')
        (of_amarre,) = site.query('count({job="amarre"})')

        assert 0 < int(count["value"][1]) < int(of_amarre["value"][1])

    def test_one_trace(self, site: Site) -> None:
        """
        From the browser's request to REDCap, there is one trace with one root.
        """

        def whole() -> bool:
            return any(reaches_redcap(trace) for trace in site.traces("POST redcap"))

        wait_for("a trace from the edge to REDCap", whole)

    def test_service_graph(self, site: Site) -> None:
        """
        Callers and services are edges of Jaeger's graph.
        """

        def edges() -> set[tuple[str, str]]:
            url = f"http://{site.at['query']}/api/dependencies"
            answer = get(url, endTs=str(int(time.time() * 1000)), lookback="3600000")
            return {(edge["parent"], edge["child"]) for edge in answer["data"]}

        wait_for("the graph", lambda: {("gateway-envoy", "gateway")} <= edges())

    def test_nothing_personal(self, site: Site) -> None:
        """
        No exported signal contains an address, a name, a token, a cookie or a link.
        """
        for name in ("traces", "logs"):
            wait_for(name, site.sent(name).is_file)
            text = site.sent(name).read_text()
            assert len(text) > 10_000
            found = {kind: re.findall(pattern, text)[:3] for kind, pattern in PERSONAL.items()}
            assert {} == {kind: hits for kind, hits in found.items() if hits}, name

    def test_lines(self, site: Site) -> None:
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

    def test_dashboards(self, site: Site) -> None:
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


class TestAlerts:
    """Real faults and their notifications: one page per cause, none after it is over."""

    def test_heartbeat(self, site: Site) -> None:
        """
        The heartbeat arrives repeatedly, only at its own receiver.
        """

        def beats() -> list[dict[str, Any]]:
            return [page for page in site.paged if page["receiver"] == "heartbeat"]

        wait_for("two heartbeats", lambda: len(beats()) >= 2)

        assert {"Watchdog"} == {a["labels"]["alertname"] for b in beats() for a in b["alerts"]}
        assert "Watchdog" not in site.pages("firing")

    def test_hung_edge(self, site: Site) -> None:
        """
        A hanging proxy at the edge pages once, by webhook and mail, and its end is reported.
        """
        since = before_a_fault(site)
        pid = site.mesh.pid("gateway-envoy")
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_for("the page", lambda: "ProxyDown" in site.pages("firing", since))
            wait_for("the mail", lambda: any("ProxyDown" in s for s in site.subjects()))
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_for("the end", lambda: "ProxyDown" in site.pages("resolved", since))

        assert {"ProxyDown"} == site.pages("firing", since) - SLOW

    def test_failing_service(self, site: Site) -> None:
        """
        A failing method of Survey pages once: the burn rate of its budget and the errors of the
        gateway are effects. Afterwards nobody is paged.
        """
        since = before_a_fault(site)
        control(site, "fault", "add", "survey.ListRequests", "--abort", "UNAVAILABLE")
        try:
            wait_for("the page", lambda: ALERT in site.pages("firing", since))
            # Long enough for every alert of this fault to become active.
            wait_for(
                "the effect",
                lambda: site.query(firing("GatewayErrors")),
            )
        finally:
            control(site, "fault", "clear")
        wait_for("the end", lambda: ALERT in site.pages("resolved", since))
        wait_for("calm", lambda: not site.query(firing(".*Errors.*|Availability.*")))

        assert {ALERT} == site.pages("firing", since) - SLOW

    def test_slow_method(self, site: Site) -> None:
        """
        A method that is too slow fires both latency alerts and pages about nothing else.
        """
        since = before_a_fault(site, besides=set())
        control(site, "fault", "add", "survey.ListRequests", "--delay", "1500ms")
        try:
            for name in sorted(SLOW):
                wait_for(name, partial(site.query, firing(name)))
            wait_for("the page", lambda: SLOW & site.pages("firing", since))
        finally:
            control(site, "fault", "clear")
        wait_for("the end", lambda: SLOW & site.pages("resolved", since))

        assert site.pages("firing", since) <= SLOW


def before_a_fault(site: Site, besides: Set[str] = SLOW) -> int:
    """Wait until no page except some is active; return the number of messages so far."""
    others = "|".join(sorted(besides))
    active = f'ALERTS{{alertstate="firing",severity="critical",alertname!~"{others}"}}'
    wait_for("calm", lambda: not site.query(active), said=lambda: site.query(active))
    return len(site.paged)


def firing(names: str) -> str:
    """Return the query for firing alerts, by a regular expression of names."""
    return f'ALERTS{{alertstate="firing",alertname=~"{names}"}}'


def control(site: Site, *arguments: str) -> None:
    """Run an ``amarre`` command on the mesh."""
    asyncio.run(site.mesh.amarre(*arguments))


def test_committed_collector() -> None:
    """
    The collector is tested with the rendered file.
    """
    assert [] == registry.drift(collector.render(), registry.committed("collector"))
