"""A mesh that sends its telemetry to Collector, Jaeger, Prometheus 3 and Alertmanager."""

import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import yaml

from mesh.chassis.testing import free_port
from mesh.contract import policy
from mesh.render import registry, rules
from mesh.render.rules import alertmanager, scraping
from mesh.render.rules.pace import Pace
from tests.observability.servers import get
from tests.production.programs import TELEMETRY, MissingProgramsError, find, program
from tests.sidecars.support.running import Running

PACE = Pace(15)
"""Fifteen times faster than in production: a window of 5 minutes takes 20 seconds."""
PERSON = "planted.canary"
"""The name in an address that no signal may have."""
READ_SECONDS = 0.5
"""How long mails may have been delivered before they are known."""
OBSERVABILITY = registry.ROOT / "mesh/observability"


def missing() -> str:
    """Return a sentence with the missing programs; empty if there are all."""
    try:
        find(TELEMETRY)
    except MissingProgramsError as error:
        return str(error)
    return ""


MISSING = missing()


class Site:
    """A mesh that sends its telemetry to the real programs."""

    def __init__(self, folder: Path, longest_seconds: float = float("inf")) -> None:
        """
        Prepare a site in *folder*.

        Args:
            folder: Where all files are written.
            longest_seconds: The longest ``for`` of its rules; the tests of the rules cover theirs.
        """
        self.folder = folder
        self._longest_seconds = longest_seconds
        names = [
            *("grpc", "http", "health", "own", "jaeger", "jaeger-http", "query", "query-grpc"),
            *("jaeger-health", "prometheus", "alertmanager", "smtp", "mails", "node"),
        ]
        self.at = {name: f"127.0.0.1:{free_port()}" for name in names}
        self.paged: list[dict[str, Any]] = []
        self.refuses_heartbeats = False
        self.programs: dict[str, subprocess.Popen[str]] = {}
        self.mesh: Running
        self.webhook = ""
        self._reading = Lock()
        self._read_at = 0.0
        self._subjects: list[str] = []

    def refuses(self, page: dict[str, Any]) -> bool:
        """Return whether the receiver of *page* refuses it now."""
        return self.refuses_heartbeats and page["receiver"] == "heartbeat"

    def outbox(self) -> list[str]:
        """Return the command of the mail server of the teams on call, which is not the mesh's."""
        return [
            *(sys.executable, "-m", "sandbox.outbox", "--http", self.at["mails"]),
            *("--smtp", self.at["smtp"], "--database", str(self.folder / "mails.sqlite")),
        ]

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
                "otlp_grpc/jaeger": {
                    "endpoint": self.at["jaeger"],
                    "timeout": "1s",
                    # The defaults are thirty seconds and five minutes.
                    "retry_on_failure": {
                        "initial_interval": "1s",
                        "max_interval": PACE(minutes=0.5),
                        "max_elapsed_time": PACE(minutes=5),
                    },
                },
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
        return [program("otelcol"), "--config", str(committed), "--config", str(moved)]

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
        return [program("jaeger"), "--config", str(path)]

    def watch(self, patient: Running) -> dict[str, list[str]]:
        """Write the files of Prometheus and Alertmanager for *patient*; return their commands."""
        self.mesh = patient
        delivery = alertmanager.Delivery(self.at["smtp"], "example.org", self.webhook, self.webhook)
        watched = {
            "prometheus": self.at["prometheus"],
            "alertmanager": self.at["alertmanager"],
            "otel-collector": self.at["own"],
        }
        registry.write(
            {
                **{
                    name: self._hastened(text)
                    for name, text in rules.rule_files(policy.load(), PACE, watchers=True).items()
                },
                "prometheus.yaml": scraping.configuration(
                    alertmanager=self.at["alertmanager"],
                    pace=PACE,
                    watched=watched,
                    from_files=True,
                ).replace(f"127.0.0.1:{scraping.NODE_EXPORTER}", self.at["node"]),
                **scraping.target_files(self.targets()),
                "alertmanager.yaml": alertmanager.configuration(delivery, PACE),
                alertmanager.TEMPLATES: alertmanager.texts(),
            },
            self.folder,
        )
        (self.folder / "applications").mkdir()
        return {
            "alertmanager": [
                program("alertmanager"),
                f"--config.file={self.folder}/alertmanager.yaml",
                f"--storage.path={self.folder}/alertmanager",
                f"--web.listen-address={self.at['alertmanager']}",
                "--cluster.listen-address=",
            ],
            "prometheus": [
                program("prometheus"),
                f"--config.file={self.folder}/prometheus.yaml",
                f"--storage.tsdb.path={self.folder}/prometheus",
                f"--web.listen-address={self.at['prometheus']}",
                "--enable-feature=exemplar-storage",
                "--web.enable-remote-write-receiver",
            ],
        }

    def targets(self) -> list[scraping.Target]:
        """Return the scrape targets of the mesh."""
        base = int(urlsplit(self.mesh.ready["urls"]["app"]).port or 0)
        return list(scraping.targets(base))

    def scrape(self, targets: Iterable[scraping.Target]) -> None:
        """Let Prometheus scrape *targets* instead."""
        for name, text in scraping.target_files(targets).items():
            partial = self.folder / f"{name}.partial"
            partial.write_text(text)
            partial.replace(self.folder / name)

    def _hastened(self, text: str) -> str:
        """Return rules that wait for `longest_seconds` at most."""

        def shorter(found: re.Match[str]) -> str:
            seconds = float(found[2]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[found[3]]
            if seconds <= self._longest_seconds:
                return found[0]
            return f"{found[1]}{self._longest_seconds:g}s"

        return re.sub(r"(?m)^( +for: )(\d+)(ms|s|m|h)$", shorter, text)

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

    def state(self, alert: str) -> str:
        """Return what Prometheus and Alertmanager know about *alert*."""
        known = self.query(f'ALERTS{{alertname="{alert}"}}')
        states = sorted({one["metric"]["alertstate"] for one in known})
        url = f"http://{self.at['alertmanager']}/api/v2/alerts"
        held = [one["status"] for one in get(url, filter=f'alertname="{alert}"')]
        return f"{states or 'inactive'}, {held or 'not notified'}"

    def subjects(self) -> list[str]:
        """Return the subjects of all mails, which many threads ask for."""
        with self._reading:
            if time.monotonic() - self._read_at > READ_SECONDS:
                mails = get(f"http://{self.at['mails']}/messages")
                self._subjects = [mail["subject"] for mail in mails]
                self._read_at = time.monotonic()
            return self._subjects

    def mailed(self) -> set[str]:
        """Return the names of the alerts of which a mail told that they fire."""
        return {s.split()[1] for s in self.subjects() if not s.startswith("[resolved]")}


def own_metrics(address: str) -> dict[str, Any]:
    """Return the address of the collector's own metrics."""
    host, _, port = address.rpartition(":")
    return {"pull": {"exporter": {"prometheus": {"host": host, "port": int(port)}}}}
