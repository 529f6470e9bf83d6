"""Configurations of programs that cannot run here: consistent in themselves and with the mesh."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.chassis.telemetry import names
from mesh.contract.credential_names import personal_names
from mesh.render import collector, registry, signals

FOLDER = registry.ROOT / "mesh/observability"
DOCS = registry.ROOT / "docs/how-to"
COLLECTOR = yaml.safe_load(collector.render()["otel-collector.yaml"])
ALLOY = (FOLDER / "alloy/config.alloy").read_text()
LABELS = {"level", "kind", "service"}


def loaded(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return content


class TestCollector:
    @pytest.mark.parametrize("name", ["collector/otel-collector.yaml", "jaeger/jaeger.yaml"])
    def test_components(self, name: str) -> None:
        """
        Every component in a pipeline is defined, and every defined one is used.
        """
        content = loaded(name)
        pipelines = content["service"]["pipelines"].values()

        for kind in ("receivers", "processors", "exporters"):
            assert set(content[kind]) == {each for p in pipelines for each in p[kind]}
        assert set(content["extensions"]) == set(content["service"]["extensions"])

    def test_order(self) -> None:
        """
        Every pipeline rejects overload first, redacts everything, and batches last.
        """
        for pipeline in COLLECTOR["service"]["pipelines"].values():
            first, *between, last = pipeline["processors"]
            assert ("memory_limiter", "batch") == (first, last)
            assert {"attributes/sensitive", "redaction"} <= set(between)

    def test_sensitive_fields(self) -> None:
        """
        Fields that the contracts mark as sensitive are deleted by name.
        """
        actions = COLLECTOR["processors"]["attributes/sensitive"]["actions"]
        deleted = {action["key"] for action in actions if "key" in action}

        assert {"email", "session_secret", "user_token"} <= deleted
        assert personal_names() == deleted
        assert set() == deleted & set(signals.schema()["logs"]["fields"])

    @pytest.mark.parametrize(
        ("value", "blocked"),
        [
            ("to ada.lovelace@example.org", True),
            ("Bearer eyJhbGciOi.eyJzdWIi.c2ln-_x", True),
            ("0123456789ABCDEF0123456789ABCDEF", True),
            ("0af7651916cd43dd8448eb211c80319c", False),
            ("amarre.survey.v1.SurveyService/ListRequests", False),
            ("redis://:hunter2@cache:6379/0", True),
            ("GET /login?userId=1&secret=hunter2", True),
            ("accessToken=hunter2", True),
            ('{"api_key": "hunter2"}', True),
            ('{\\"password\\": \\"hunter2\\"}', True),
            ("Authorization: Basic dXNlcjpodW50ZXIy", True),
            ("token: expired", False),
            ("token_type=bearer", False),
            ("tokens=3", False),
            ("https://example.org/docs", False),
        ],
    )
    def test_values(self, value: str, blocked: bool) -> None:
        """
        Addresses, user tokens and REDCap tokens are masked everywhere; ids are not.
        """
        patterns = COLLECTOR["processors"]["redaction"]["blocked_values"]

        assert blocked == any(re.search(pattern, value) for pattern in patterns)

    @pytest.mark.parametrize(
        ("key", "blocked"),
        [
            ("db.password", True),
            ("accessToken", True),
            ("ACCESS_TOKEN", True),
            ("http.request.header.x-api-key", True),
            ("http.response.header.set-cookie", True),
            ("clientsecret", True),
            ("token_type", False),
            ("gen_ai.usage.input_tokens", False),
            ("k8s.secret.name", False),
            ("cache.key", False),
            ("rpc.method", False),
        ],
    )
    def test_names(self, key: str, blocked: bool) -> None:
        """
        Attributes named like a credential are masked, in any case style.
        """
        patterns = COLLECTOR["processors"]["redaction"]["blocked_key_patterns"]

        assert blocked == any(re.search(pattern, key) for pattern in patterns)

    def test_what_is_kept(self) -> None:
        """
        Errors, slow calls and late spans are kept, whatever the rate.
        """
        policies = {p["name"]: p for p in COLLECTOR["processors"]["tail_sampling"]["policies"]}

        assert ["ERROR"] == policies["errors"]["status_code"]["status_codes"]
        assert 1000 == policies["slow"]["latency"]["threshold_ms"]
        assert names.LATE == policies["late"]["boolean_attribute"]["key"]

    def test_committed(self) -> None:
        """
        The committed file is up to date with the contracts.
        """
        assert [] == registry.drift(collector.render(), registry.committed("collector"))


class TestLogs:
    def test_promtail(self) -> None:
        """
        Promtail parses JSON, uses the line's own time, and creates labels with few values only.
        """
        for job in loaded("promtail/promtail.yaml")["scrape_configs"]:
            stages = {
                name: stage for each in job["pipeline_stages"] for name, stage in each.items()
            }
            assert LABELS == set(stages["labels"])
            assert {"trace_id", "user"} == set(stages["structured_metadata"])
            assert "time" == stages["timestamp"]["source"]
            assert set(stages["json"]["expressions"]) <= set(signals.schema()["logs"]["fields"])

    def test_alloy(self) -> None:
        """
        Alloy creates the same labels and metadata, and every reference is defined.
        """
        assert LABELS == keys_of("stage.labels")
        assert {"trace_id", "user"} == keys_of("stage.structured_metadata")
        assert keys_of("stage.json") <= set(signals.schema()["logs"]["fields"])
        components = {
            f"{kind}.{name}" for kind, name in re.findall(r'^([\w.]+) "(\w+)" {', ALLOY, re.M)
        }
        used = re.findall(r"\b((?:discovery|local|loki)(?:\.\w+){2})\.(?:\w+)", ALLOY)
        assert components >= set(used)
        assert components - set(used) == {"loki.source.docker.containers", "loki.source.file.files"}

    def test_who_sends_lines_itself(self) -> None:
        """
        Containers that export their logs have a label by which both collectors drop them.
        """
        services = yaml.safe_load((registry.committed("compose") / "compose.yaml").read_text())
        services = services["services"]
        exporting = {
            name
            for name, one in services.items()
            if "OTEL_EXPORTER_OTLP_ENDPOINT" in one.get("environment", {})
        }
        marked = {
            name
            for name, one in services.items()
            if one.get("labels", {}).get("amarre.logs") == "otlp"
        }
        promtail = loaded("promtail/promtail.yaml")["scrape_configs"]
        docker = next(job for job in promtail if "docker_sd_configs" in job)
        meta = "__meta_docker_container_label_amarre_logs"
        dropped = {"source_labels": [meta], "regex": "otlp", "action": "drop"}

        assert exporting == marked
        assert dropped in docker["relabel_configs"]
        assert re.search(rf'"{meta}"\]\s+regex\s+= "otlp"\s+action\s+= "drop"', ALLOY)

    def test_alloy_brackets(self) -> None:
        """
        All brackets are balanced.
        """
        code = re.sub(r'"[^"]*"|//.*', "", ALLOY)

        for opening, closing in ("{}", "[]"):
            assert code.count(opening) == code.count(closing)

    def test_loki(self) -> None:
        """
        Loki keeps structured metadata, with the trace, and deletes data after 30 days.
        """
        limits = loaded("loki/loki.yaml")["limits_config"]

        assert limits["allow_structured_metadata"] is True
        assert "720h" == limits["retention_period"]

    def test_one_name_of_the_service(self) -> None:
        """
        Lines from both sources have the label that dashboards and links from spans use.
        """
        limits = loaded("loki/loki.yaml")["limits_config"]
        indexed = limits["otlp_config"]["resource_attributes"]["attributes_config"]
        sources = loaded("grafana/provisioning/datasources/amarre.yaml")["datasources"]
        tags = [
            source["jsonData"]["tracesToLogsV2"]["tags"]
            for source in sources
            if source["uid"] in {"tempo", "jaeger"}
        ]

        assert "service.name" in indexed[0]["attributes"]
        assert set(limits["discover_service_name"]) <= LABELS
        assert [[{"key": "service.name", "value": "service_name"}]] * 2 == tags


def keys_of(stage: str) -> set[str]:
    found = re.search(rf"{re.escape(stage)} {{\s+\w+ = {{([^}}]*)}}", ALLOY)
    assert found
    return set(re.findall(r"(\w+)\s+=", found[1]))


class TestTraces:
    def test_ports(self) -> None:
        """
        Tempo and Jaeger listen where the collector sends.
        """
        exporters = COLLECTOR["exporters"]
        tempo = loaded("tempo/tempo.yaml")["distributor"]["receivers"]["otlp"]["protocols"]
        jaeger = loaded("jaeger/jaeger.yaml")["receivers"]["otlp"]["protocols"]

        for name, protocols in (("tempo", tempo), ("jaeger", jaeger)):
            port = protocols["grpc"]["endpoint"].rpartition(":")[2]
            assert f"{name}:{port}" == exporters[f"otlp_grpc/{name}"]["endpoint"]


class TestDocuments:
    def test_examples(self) -> None:
        """
        The Python examples for other applications are valid Python.
        """
        text = (DOCS / "observe-other-applications.md").read_text()
        examples = re.findall(r"```python\n(.*?)```", text, re.S)

        assert 2 == len(examples)
        for example in examples:
            ast.parse(example)

    @pytest.mark.parametrize(
        "page", [*DOCS.glob("*.md"), FOLDER / "README.md"], ids=lambda page: str(page.name)
    )
    def test_links(self, page: Path) -> None:
        """
        Every link points to an existing file.
        """
        links = re.findall(r"\]\(([^)#]+)\)", page.read_text())

        assert [] == [link for link in links if not (page.parent / link).is_file()]
