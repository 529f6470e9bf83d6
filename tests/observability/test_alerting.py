"""
The real Prometheus and Alertmanager with a mesh: a service gets a fault, and notifications report
it and its end.

The rules are those of production, sixty times faster: a window of 5 minutes takes 5 seconds.
"""

import asyncio
import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from mesh import topology
from mesh.chassis.telemetry import names
from mesh.chassis.testing import free_port
from mesh.contract import policy
from mesh.render import registry, rules
from mesh.render.rules import alertmanager, scraping
from mesh.render.rules.pace import Pace
from tests.observability.servers import get, pager, researcher_at_work, running, wait_for
from tests.sidecars.support.running import Running, mesh

PROGRAMS = {name: shutil.which(name) for name in ("prometheus", "prometheus-alertmanager")}
PACE = Pace(60)
ALERT = "ErrorsAboveFivePercent"

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(
        None in PROGRAMS.values(),
        reason=f"missing: {[n for n, p in PROGRAMS.items() if p is None]}; apt-get install them",
    ),
]


class Hospital:
    """The mesh, its monitoring servers, and the notification receivers."""

    def __init__(self, folder: Path, patient: Running) -> None:
        self.folder = folder
        self.patient = patient
        self.base = int(urlsplit(patient.ready["urls"]["app"]).port or 0)
        self.at = {name: f"127.0.0.1:{free_port()}" for name in ("prometheus", "alertmanager")}
        self.paged: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def open(self) -> Iterator["Hospital"]:
        with contextlib.ExitStack() as stack:
            webhook, self.paged = stack.enter_context(pager())
            self._configure(webhook)
            for name, command in self._commands().items():
                log = self.folder / f"{name}.log"
                stack.enter_context(running(*command, log=log))
            yield self

    def _configure(self, webhook: str) -> None:
        outbox = f"127.0.0.1:{self.base + topology.SMTP}"
        delivery = alertmanager.Delivery(outbox, "example.org", webhook)
        registry.write(
            {
                **rules.rule_files(policy.load(), PACE),
                "prometheus.yaml": scraping.configuration(
                    scraping.targets(self.base), alertmanager=self.at["alertmanager"], pace=PACE
                ),
                "alertmanager.yaml": alertmanager.configuration(delivery, PACE),
                alertmanager.TEMPLATES: alertmanager.texts(),
            },
            self.folder,
        )

    def _commands(self) -> dict[str, list[str]]:
        folder = self.folder
        return {
            "alertmanager": [
                str(PROGRAMS["prometheus-alertmanager"]),
                f"--config.file={folder}/alertmanager.yaml",
                f"--storage.path={folder}/alertmanager",
                f"--web.listen-address={self.at['alertmanager']}",
                "--cluster.listen-address=",
            ],
            "prometheus": [
                str(PROGRAMS["prometheus"]),
                f"--config.file={folder}/prometheus.yaml",
                f"--storage.tsdb.path={folder}/prometheus",
                f"--web.listen-address={self.at['prometheus']}",
                "--enable-feature=exemplar-storage",
            ],
        }

    def amarre(self, *arguments: str) -> None:
        """Send a control action to the mesh."""
        asyncio.run(self.patient.amarre(*arguments))

    def query(self, path: str, **query: str) -> Any:
        return get(f"http://{self.at['prometheus']}/api/v1/{path}", **query)["data"]

    def is_observed(self) -> bool:
        rate = 'service_method:amarre_calls:rate5m{method="ListRequests"} > 0'
        return bool(self.query("query", query=rate)["result"])

    def services_of(self, trace_id: str) -> set[str]:
        """Return the services whose spans of a trace the console has."""
        ready = self.patient.ready
        answer = httpx.get(
            f"{ready['urls']['console']}/api/traces/{trace_id}",
            headers={"authorization": f"Bearer {ready['console']['token']}"},
            trust_env=False,
            timeout=5,
        )
        return {span["service"] for span in answer.raise_for_status().json()["spans"]}

    def pages(self, status: str) -> list[dict[str, Any]]:
        return [
            alert
            for page in self.paged
            for alert in page["alerts"]
            if (alert["labels"]["alertname"], alert["status"]) == (ALERT, status)
        ]

    def mails(self, beginning: str) -> list[dict[str, Any]]:
        messages = get(f"{self.patient.ready['urls']['outbox']}/messages")
        return [mail for mail in messages if mail["subject"].startswith(beginning)]


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    with (
        mesh() as patient,
        researcher_at_work(patient),
        Hospital(tmp_path, patient).open() as running_one,
    ):
        wait_for("the first measurement", running_one.is_observed)
        yield running_one


def test_a_fault_and_its_end(hospital: Hospital) -> None:
    """
    There are no notifications while all is well; when calls fail, the engineer on call is paged and
    the team gets a mail with the runbook; when calls succeed again, both are notified.
    """
    well(hospital)
    ill(hospital)
    well_again(hospital)


def well(hospital: Hospital) -> None:
    """Every rule can be evaluated, none fires, and buckets link to traces."""
    now = time.time()

    def healths() -> set[str]:
        groups = hospital.query("rules")["groups"]
        return {rule["health"] for group in groups for rule in group["rules"]}

    def exemplars() -> Any:
        series = f'{names.RPC_CLIENT_DURATION}_bucket{{method="ListRequests"}}'
        around = {"start": str(now - 60), "end": str(time.time())}
        return hospital.query("query_exemplars", query=series, **around)

    wait_for("the evaluation of every rule", lambda: {"ok"} == healths())
    found = wait_for("an exemplar", exemplars)

    trace_id = found[0]["exemplars"][-1]["labels"]["trace_id"]
    wait_for("its trace", lambda: {"gateway", "survey"} <= hospital.services_of(trace_id))
    assert [] == hospital.pages("firing")


def ill(hospital: Hospital) -> None:
    """The sidecar of Survey fails calls that never reach it: page and mail."""
    hospital.amarre("fault", "add", "survey.ListRequests", "--abort", "UNAVAILABLE")

    (page, *_) = wait_for("the page", lambda: hospital.pages("firing"))
    (mail, *_) = wait_for("the mail", lambda: hospital.mails(f"[critical] {ALERT}"))

    labels = page["labels"]
    assert ("survey", "critical", "mesh") == tuple(
        labels[name] for name in ("service", "severity", "team")
    )
    assert "mesh@example.org" == mail["to"]
    assert "survey is failing." in mail["text"]
    assert f"What to do: {topology.RUNBOOKS}/errors-above-five-percent.md" in mail["text"]


def well_again(hospital: Hospital) -> None:
    """Calls succeed again: resolved notifications."""
    hospital.amarre("fault", "clear")

    wait_for("the end of the page", lambda: hospital.pages("resolved"))
    (mail, *_) = wait_for("the mail", lambda: hospital.mails(f"[resolved] {ALERT}"))

    assert ", resolved at " in mail["text"]
