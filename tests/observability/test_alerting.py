"""
The real Prometheus and Alertmanager: a service fails, people hear of it, and that it is over.

The rules are those of production, sixty times faster: a window of 5 minutes takes 5 seconds.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from mesh.chassis.testing import free_port
from mesh.contract import policy
from mesh.render import alertmanager, registry, rules
from mesh.render.rules import scraping
from mesh.render.rules.pace import Pace
from mesh.render.rules.scraping import Target

PROGRAMS = {name: shutil.which(name) for name in ("prometheus", "prometheus-alertmanager")}
PACE = Pace(60)
WAIT_SECONDS = 45.0
ALERT = "ErrorsAboveFivePercent"
TRACE = "0af7651916cd43dd8448eb211c80319c"

pytestmark = pytest.mark.skipif(
    None in PROGRAMS.values(),
    reason=f"missing: {[n for n, p in PROGRAMS.items() if p is None]}; apt-get install them",
)


def wait_for(what: str, holds: Callable[[], Any]) -> Any:
    """Return what *holds* says once it is true."""
    ends = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < ends:
        with contextlib.suppress(httpx.HTTPError):
            if found := holds():
                return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen within {WAIT_SECONDS} s")


def get(url: str, **query: str) -> Any:
    answer = httpx.get(url, params=query, trust_env=False, timeout=5)
    answer.raise_for_status()
    return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text


@contextlib.contextmanager
def running(*command: str, log: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program in a process group of its own, and end it."""
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, text=True, start_new_session=True, **options
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=10)


@contextlib.contextmanager
def pager() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The webhook of whoever is on call: its URL, and what it was sent."""
    taken: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Hospital:
    """Everything that runs in this test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = ("metrics", "prometheus", "alertmanager", "http", "smtp")
        self.at = {name: f"127.0.0.1:{free_port()}" for name in names}
        self.paged: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def open(self) -> Iterator["Hospital"]:
        with contextlib.ExitStack() as stack:
            webhook, self.paged = stack.enter_context(pager())
            self._configure(webhook)
            for name, command in self._commands().items():
                log = self.folder / f"{name}.log"
                stack.enter_context(running(*command, log=log))
            self.patient = stack.enter_context(
                running(
                    *(sys.executable, "-m", "tests.observability.patient", self.at["metrics"]),
                    log=self.folder / "patient.log",
                    stdin=subprocess.PIPE,
                )
            )
            yield self

    def _configure(self, webhook: str) -> None:
        survey = Target("amarre", "survey", "survey", self.at["metrics"])
        delivery = alertmanager.Delivery(self.at["smtp"], "example.org", webhook)
        registry.write(
            {
                **rules.rule_files(policy.load(), PACE),
                "prometheus.yaml": scraping.configuration(
                    [survey], alertmanager=self.at["alertmanager"], pace=PACE
                ),
                "alertmanager.yaml": alertmanager.configuration(delivery, PACE),
                alertmanager.TEMPLATES: alertmanager.texts(),
            },
            self.folder,
        )

    def _commands(self) -> dict[str, list[str]]:
        folder = self.folder
        return {
            "outbox": [
                *(sys.executable, "-m", "sandbox.outbox", "--database", str(folder / "outbox.db")),
                *("--http", self.at["http"], "--smtp", self.at["smtp"]),
            ],
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

    def tell(self, order: str) -> None:
        assert self.patient.stdin is not None
        self.patient.stdin.write(f"{order}\n")
        self.patient.stdin.flush()

    def query(self, path: str, **query: str) -> Any:
        return get(f"http://{self.at['prometheus']}/api/v1/{path}", **query)["data"]

    def is_observed(self) -> bool:
        found = self.query("query", query="service_method:amarre_calls:rate5m")["result"]
        return bool(found) and float(found[0]["value"][1]) > 0

    def pages(self, status: str) -> list[dict[str, Any]]:
        return [
            alert
            for page in self.paged
            for alert in page["alerts"]
            if (alert["labels"]["alertname"], alert["status"]) == (ALERT, status)
        ]

    def mails(self, beginning: str) -> list[dict[str, Any]]:
        messages = get(f"http://{self.at['http']}/messages")
        return [mail for mail in messages if mail["subject"].startswith(beginning)]


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    with Hospital(tmp_path).open() as running_one:
        wait_for("the first measurement", running_one.is_observed)
        yield running_one


def test_a_fault_and_its_end(hospital: Hospital) -> None:
    """
    Nobody hears anything while all is well; when calls fail, whoever is on call is paged and the
    team gets a mail that says what to do; when calls go well again, both hear that it is over.
    """
    well(hospital)
    ill(hospital)
    well_again(hospital)


def well(hospital: Hospital) -> None:
    """Every rule can be evaluated, none fires, buckets lead to traces."""
    now = time.time()

    def healths() -> set[str]:
        groups = hospital.query("rules")["groups"]
        return {rule["health"] for group in groups for rule in group["rules"]}

    def exemplars() -> Any:
        series = "amarre_rpc_server_duration_seconds_bucket"
        around = {"start": str(now - 60), "end": str(time.time())}
        return hospital.query("query_exemplars", query=series, **around)

    wait_for("the evaluation of every rule", lambda: {"ok"} == healths())
    found = wait_for("an exemplar", exemplars)

    assert {"trace_id": TRACE} == found[0]["exemplars"][0]["labels"]
    assert [] == hospital.pages("firing")


def ill(hospital: Hospital) -> None:
    """Calls fail: page and mail."""
    hospital.tell("fail")

    (page, *_) = wait_for("the page", lambda: hospital.pages("firing"))
    (mail, *_) = wait_for("the mail", lambda: hospital.mails(f"[critical] {ALERT}"))

    labels = page["labels"]
    assert ("survey", "critical", "mesh") == tuple(
        labels[name] for name in ("service", "severity", "team")
    )
    assert "mesh@example.org" == mail["to"]
    assert "survey fails." in mail["text"]
    assert "docs/runbooks/errors-above-five-percent.md" in mail["text"]


def well_again(hospital: Hospital) -> None:
    """Calls go well: the end of both."""
    hospital.tell("heal")

    wait_for("the end of the page", lambda: hospital.pages("resolved"))
    (mail, *_) = wait_for("the mail", lambda: hospital.mails(f"[over] {ALERT}"))

    assert ", over at " in mail["text"]
