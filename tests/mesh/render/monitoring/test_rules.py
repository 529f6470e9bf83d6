"""
Prometheus rules: complete, consistent with the contracts, tested by promtool, explained by
runbooks.
"""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from mesh import cli
from mesh.contract import policy
from mesh.render import compose, registry, rules, signals
from mesh.render.rules import recording, scraping
from mesh.render.rules.alert import Alert
from mesh.render.rules.pace import REAL, Pace
from mesh.topology import PROCESSES, RUNBOOKS
from tests.mesh.render.monitoring.promql import series_in

MESH = policy.load()
ALERTS = {alert.name: alert for group in rules.alerts_of(MESH).values() for alert in group}
FILES = rules.render()
PROMTOOL = shutil.which("promtool")
PAGES = registry.ROOT / "docs" / "runbooks"
SECTIONS = ["What it means", "Where to look", "What to do"]
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is missing: apt-get install prometheus"
)


def expressions() -> dict[str, str]:
    """Every expression of every rendered rule, by file and rule name."""
    return {
        f"{name} {rule.get('alert', rule.get('record'))} {at}": rule["expr"]
        for name, text in FILES.items()
        if name.startswith("rules/")
        for group in yaml.safe_load(text)["groups"]
        for at, rule in enumerate(group["rules"])
    }


RECORDED = {rule["record"] for group in recording.groups(MESH, REAL) for rule in group["rules"]}


class TestExpressions:
    def test_series(self) -> None:
        """
        Every expression parses, and every series that it reads is emitted.
        """
        known = signals.metric_names() | RECORDED
        unknown = {name: series_in(text) - known for name, text in expressions().items()}

        assert {} == {name: series for name, series in unknown.items() if series}


class TestPromises:
    def test_every_method(self) -> None:
        """
        Every method has its availability objective as a series, with the line of its contract.
        """
        promised = {
            (rule["labels"]["service"], rule["labels"]["method"]): (
                float(re.sub(r"[^\d.]", "", rule["expr"])),
                rule["labels"]["source"],
            )
            for rule in recording.promises(MESH)
            if "service_method:amarre_availability:objective" == rule["record"]
        }

        assert promised == {(m.service, m.name): (m.objective.availability, m.source) for m in MESH}

    def test_streams(self) -> None:
        """
        Long-lived streams have no latency objective.
        """
        timed = {
            rule["labels"]["method"]
            for rule in recording.promises(MESH)
            if "service_method:amarre_latency:objective" == rule["record"]
        }

        assert {m.name for m in MESH} - timed == {
            "WatchRequests",
            "WatchRevocations",
            "WatchStatus",
        }


class TestStories:
    @needs_promtool
    @pytest.mark.parametrize("group", rules.alerts_of(MESH))
    def test_promtool(self, group: str, tmp_path: Path) -> None:
        """
        Each alert fires in its first test and does not in its second.
        """
        registry.write(FILES, tmp_path)

        ended = promtool("test", "rules", str(tmp_path / f"tests/{group}.yaml"))

        assert 0 == ended.returncode, ended.stdout + ended.stderr

    @needs_promtool
    @pytest.mark.parametrize(
        ("condition", "broken"),
        [
            pytest.param("absent(vector(1))", "fires", id="never fires"),
            pytest.param("vector(1)", "stays quiet", id="always fires"),
        ],
    )
    def test_stories_can_fail(self, condition: str, broken: str, tmp_path: Path) -> None:
        """
        An alert that never fires fails its first test, one that always fires its second.
        """
        registry.write({**FILES, "rules/recording.yaml": "groups: []"}, tmp_path)
        for group in rules.alerts_of(MESH):
            file = tmp_path / f"rules/{group}.yaml"
            content = yaml.safe_load(file.read_text())
            for rule in content["groups"][0]["rules"]:
                rule |= {"expr": condition, "for": "0s"}
            file.write_text(yaml.safe_dump(content))
        stories = list(tmp_path.glob("tests/*.yaml"))
        for file in stories:  # These conditions are the same at any time.
            content = yaml.safe_load(file.read_text()) | {"evaluation_interval": "1h"}
            file.write_text(yaml.safe_dump(content))

        ended = promtool("test", "rules", *map(str, stories))

        said = ended.stdout + ended.stderr
        tested = [name for name, alert in ALERTS.items() if alert.quiet or broken == "fires"]
        assert [] == [name for name in tested if f"name: {name} {broken}" not in said]

    @needs_promtool
    def test_configuration(self, tmp_path: Path) -> None:
        """
        Prometheus accepts its configuration and its rule files.
        """
        registry.write(FILES, tmp_path)

        ended = promtool("check", "config", str(tmp_path / "prometheus.yaml"))

        assert 0 == ended.returncode, ended.stdout + ended.stderr


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    return subprocess.run(
        [PROMTOOL, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


class TestRunbooks:
    @pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS)
    def test_page(self, alert: Alert) -> None:
        """
        Every alert has a page with its meaning, where to look and what to do.
        """
        page = (PAGES / alert.page).read_text()
        title, *sections = re.findall(r"^#+ (.+)$", page, re.MULTILINE)

        assert alert.name == title
        assert sections[:3] == SECTIONS

    @pytest.mark.parametrize("target", registry.WITH_ALERTS)
    def test_link(self, target: str) -> None:
        """
        Alerts link to absolute URLs, and a site sets the base URL of its own pages.
        """
        ours, theirs = (
            set(re.findall(r"runbook_url: (\S+/)", "".join(files.values())))
            for files in (
                registry.render(target),
                registry.render(target, "https://wiki.example.net/"),
            )
        )

        assert {f"{RUNBOOKS}/"} == ours
        assert {"https://wiki.example.net/"} == theirs

    def test_no_other_page(self) -> None:
        """
        There is no page for a removed alert, and every link between pages works.
        """
        pages = {path.name: path.read_text() for path in PAGES.glob("*.md")}
        links = {link for page in pages.values() for link in re.findall(r"\]\(([^)]+)\)", page)}

        assert {alert.page for alert in ALERTS.values()} | {"README.md"} == set(pages)
        assert [] == [link for link in links if not (PAGES / link).is_file()]


class TestScraping:
    def test_every_process(self) -> None:
        """
        Every process that serves metrics is scraped, and every proxy.
        """
        found = list(scraping.targets(4000))

        assert {(p.name, f"127.0.0.1:{4000 + p.metrics}") for p in PROCESSES if p.metrics} == {
            (t.process, t.address) for t in found if "amarre" == t.job
        }
        assert {f"127.0.0.1:{4000 + p.admin}" for p in PROCESSES if p.admin} == {
            t.address for t in found if "envoy" == t.job
        }

    def test_interval(self) -> None:
        """
        Prometheus scrapes every 15 seconds.
        """
        assert "15s" == yaml.safe_load(FILES["prometheus.yaml"])["global"]["scrape_interval"]

    def test_names_of_labels(self) -> None:
        """
        Targets have the same labels on a laptop, in Compose and on Kubernetes, so that the same
        rules and dashboards work in all three.
        """
        laptop = configured(FILES["prometheus.yaml"])
        staging = configured(compose.render()["telemetry/prometheus.yaml"])
        (endpoint,) = yaml.safe_load(
            registry.render("kubernetes")["components/monitoring/pod-monitor-mesh.yaml"]
        )["spec"]["podMetricsEndpoints"]
        cluster = {rule.get("targetLabel") for rule in endpoint["relabelings"]}

        assert {"host", "process", "workload"} == laptop["amarre"] == laptop["envoy"]
        assert laptop["amarre"] == staging["amarre"] == staging["envoy"]
        assert laptop["amarre"] | {"job"} <= cluster

    def test_series_of_envoy(self) -> None:
        """
        Prometheus keeps exactly the Envoy series that rules and dashboards may use.
        """
        jobs = {
            job["job_name"]: job
            for job in yaml.safe_load(FILES["prometheus.yaml"])["scrape_configs"]
        }
        (kept,) = jobs["envoy"]["metric_relabel_configs"]

        assert set(signals.schema()["foreign_metrics"]["envoy"]) == set(kept["regex"].split("|"))
        assert "keep" == kept["action"]
        assert "metric_relabel_configs" not in jobs["amarre"]

    def test_monitoring(self) -> None:
        """
        In Compose, the monitoring programs are scraped as well, each under its own name.
        """
        jobs = yaml.safe_load(compose.render()["telemetry/prometheus.yaml"])["scrape_configs"]
        (own,) = [job["static_configs"] for job in jobs if "monitoring" == job["job_name"]]

        assert ["prometheus", "alertmanager", "otel-collector"] == [
            target["labels"]["process"] for target in own
        ]


def configured(text: str) -> dict[str, set[str]]:
    """Return the names of the static labels of each job."""
    return {
        job["job_name"]: {name for t in job["static_configs"] for name in t.get("labels", {})}
        for job in yaml.safe_load(text)["scrape_configs"]
        if "static_configs" in job
    }


class TestPages:
    @needs_promtool
    def test_over(self, tmp_path: Path) -> None:
        """
        Ten minutes after a fault is over, nobody is paged: every critical alert of its errors has
        ended, and its cause ended last.
        """
        registry.write(FILES, tmp_path)
        calls = 'amarre_rpc_client_duration_seconds_count{service="survey",method="ListRequests"'
        # All fail from minute 60 to 66; the budget of six hours is spent for long after.
        series = {
            f'{calls},code="OK"}}': "0+100x59 5900x6 5900+100x60",
            f'{calls},code="UNAVAILABLE"}}': "0x59 0+100x6 600x60",
        }
        paging = ("AvailabilityBudgetBurnsFast", "ErrorsAboveFivePercent")

        def at(minute: int, *alerts: tuple[str, dict[str, str]]) -> list[dict[str, object]]:
            expected = dict(alerts)
            return [
                {
                    "eval_time": f"{minute}m",
                    "alertname": name,
                    "exp_alerts": [{"exp_labels": expected[name]}] if name in expected else [],
                }
                for name in paging
            ]

        labels = {"severity": "critical", "team": "mesh", "service": "survey"}
        errors = ("ErrorsAboveFivePercent", labels)
        burning = ("AvailabilityBudgetBurnsFast", labels | {"method": "ListRequests"})
        test = {
            "interval": "1m",
            "input_series": [{"series": n, "values": v} for n, v in series.items()],
            "alert_rule_test": [*at(58), *at(66, errors, burning), *at(73, errors), *at(82)],
        }
        rules_only = [str(tmp_path / f"rules/{name}.yaml") for name in ("recording", "slo")]
        # Annotations are tested by the stories; without them the expectation is the labels.
        for name in rules_only:
            content = yaml.safe_load(Path(name).read_text())
            for group in content["groups"]:
                for rule in group["rules"]:
                    rule.pop("annotations", None)
            Path(name).write_text(yaml.safe_dump(content))
        case = tmp_path / "over.yaml"
        case.write_text(
            yaml.safe_dump({"rule_files": rules_only, "evaluation_interval": "1m", "tests": [test]})
        )

        ended = promtool("test", "rules", str(case))

        assert 0 == ended.returncode, ended.stdout + ended.stderr


class TestPace:
    @pytest.mark.parametrize(
        ("times", "minutes", "written"),
        [(1, 0.25, "15s"), (1, 5, "5m"), (1, 4320, "3d"), (60, 5, "5s"), (120, 0.25, "125ms")],
    )
    def test_written(self, times: float, minutes: float, written: str) -> None:
        """
        Durations use the largest unit that fits, in PromQL notation.
        """
        assert written == Pace(times)(minutes=minutes)


def test_committed() -> None:
    """
    The committed rules are up to date with the contracts.
    """
    for target in ("rules", "signals"):
        assert [] == registry.drift(registry.render(target), registry.committed(target))


def test_commands() -> None:
    """
    Every command in a runbook exists, including its options.
    """
    pages = "".join(path.read_text() for path in PAGES.glob("*.md"))
    typed = re.findall(r"`amarre ([^`]+)`", pages)

    assert len(typed) > 20
    for line in typed:
        words = shlex.split(line)
        command: click.Command = cli.main
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        command.make_context(command.name, words)
