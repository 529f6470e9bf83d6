"""The schema of signals matches exactly what processes register and send."""

import re
from pathlib import Path

from prometheus_client import REGISTRY
from prometheus_client.registry import Collector

import auth_svc.metrics
import gateway.server.admission
import gateway.server.request_telemetry
import survey_svc.redcap.breaker
import survey_svc.redcap.bulkhead
import survey_svc.redcap.client
import survey_svc.requests.creation
import survey_svc.requests.links
import survey_svc.requests.misses
import survey_svc.requests.watching
from mesh.chassis.telemetry import metrics, names
from mesh.contract import policy
from mesh.render import registry, signals

EMITTERS = (
    auth_svc.metrics,
    gateway.server.admission,
    gateway.server.request_telemetry,
    metrics,
    survey_svc.requests.creation,
    survey_svc.requests.links,
    survey_svc.requests.misses,
    survey_svc.redcap.client,
    survey_svc.redcap.breaker,
    survey_svc.redcap.bulkhead,
    survey_svc.requests.watching,
)
"""The modules that define metrics."""
SCHEMA = signals.schema()


def constants(prefix: str) -> set[str]:
    """The values of the constants in names.py whose name starts with *prefix*."""
    return {value for name, value in vars(names).items() if name.startswith(prefix)}


class TestMetrics:
    def test_registered(self, svids: Path) -> None:
        """
        The registered metrics match the schema: name, type, labels; and their help, which the
        schema may continue.
        """
        collectors: list[Collector] = [
            *REGISTRY._collector_to_names,
            metrics.Certificate(svids / "auth" / "tls.crt"),
        ]
        registered, helps = {}, {}
        for collector in collectors:
            for family in collector.collect():
                if family.name.startswith("amarre_"):
                    labels = list(getattr(collector, "_labelnames", ()))
                    registered[family.name] = (family.type, labels)
                    helps[family.name] = family.documentation

        assert {m["name"]: (m["type"], m["labels"]) for m in SCHEMA["metrics"]} == registered
        for metric in SCHEMA["metrics"]:
            assert f"{metric['means']} ".startswith(f"{helps[metric['name']]} ")

    def test_no_other_emitter(self) -> None:
        """
        This test covers every module that defines a metric.
        """
        defining = {
            path.relative_to(registry.ROOT).as_posix()
            for folder in ("auth_svc", "gateway", "health_svc", "mesh", "survey_svc")
            for path in (registry.ROOT / folder).rglob("*.py")
            if re.search(r"= (Counter|Gauge|Histogram|Summary)\(\s*(\"|names\.)", path.read_text())
        }

        seen = {Path(str(m.__file__)).relative_to(registry.ROOT).as_posix() for m in EMITTERS}
        assert seen == defining


class TestNames:
    def test_attributes(self) -> None:
        """
        Every attribute of the schema is a constant, and every span's attributes are documented.
        """
        used = {name for span in SCHEMA["spans"] for name in span["attributes"]}
        written = {
            value
            for name, value in vars(names).items()
            if isinstance(value, str) and "." in value and not name.startswith("_")
        }

        assert set(SCHEMA["attributes"]) == used
        assert used == {value for value in written if re.fullmatch(r"[a-z._]+", value)} - {
            names.__name__
        }

    def test_kinds(self) -> None:
        """
        The log kinds are those of the schema.
        """
        assert constants("KIND_") == set(SCHEMA["logs"]["kinds"])


class TestMatrix:
    def test_methods(self) -> None:
        """
        Every method of the contracts has its row.
        """
        mesh = policy.load()

        assert {m.short_name for m in mesh} == {row.method for row in signals.matrix(mesh)}
        assert {"amarre.survey.v1.SurveyService/GetLink"} == {
            row.span for row in signals.matrix(mesh) if "survey.GetLink" == row.method
        }

    def test_edges(self) -> None:
        """
        The permitted edges are those that the contracts declare.
        """
        assert {("gateway", "auth"), ("gateway", "survey"), ("gateway", "health")} <= signals.edges(
            policy.load()
        )
        assert ("health", "survey") not in signals.edges(policy.load())
