"""
One redaction rule for every outlet of a process: the corpus goes through each of them.

Outlets are lines on stdout (events, fields, contexts, exceptions, libraries, Python's warnings and
uncaught exceptions of threads), the same as OTLP log records, spans (name, attributes, events,
links, status), resources, and labels of metrics, on the page and over OTLP. What the console
receives from other senders is tested in ``tests/mesh/console/intake``.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from google.protobuf.json_format import MessageToDict

from mesh.chassis.testing import free_port
from tests.mesh.chassis.telemetry import collecting
from tests.mesh.contract.redaction_corpus import HARMLESS, HARMLESS_VALUES, TEXTS, P

SECRETS = ("Planted", "PLANTED9", "9A81268476645C4E")


class Filled(NamedTuple):
    """What left the process, by outlet."""

    lines: list[dict[str, Any]]
    page: str
    exported: dict[str, list[dict[str, Any]]]
    stderr: str


@pytest.fixture(scope="module")
def filled() -> Iterator[Filled]:
    """The telemetry of a process that put the corpus everywhere."""
    port = free_port()
    with collecting(port) as collector:
        ended = subprocess.run(
            [sys.executable, "-m", "tests.mesh.chassis.telemetry.outlets"],
            env={
                "PATH": os.environ["PATH"],
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
                "OTEL_RESOURCE_ATTRIBUTES": f"app.password={P},app.mail={P}%40example.org"
                ",team=mesh",
                "OTEL_BSP_MAX_QUEUE_SIZE": "20000",
                "OTEL_BLRP_MAX_QUEUE_SIZE": "20000",
                "PAGE": f"127.0.0.1:{free_port()}",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert 0 == ended.returncode, ended.stderr
        *lines, last = map(json.loads, ended.stdout.splitlines())
        exported = {
            signal: [MessageToDict(each) for each in resources]
            for signal, resources in collector.resources.items()
        }
        yield Filled(lines, last["page"], exported, ended.stderr)


def test_no_secret_leaves(filled: Filled) -> None:
    """
    No credential of the corpus is in anything that leaves the process.

    Fails for each outlet that passes texts on as they are, such as OTLP spans without
    `RedactingExporter`.
    """
    outlets = {
        "lines": filled.lines,
        "page": filled.page,
        "stderr": filled.stderr,
        **filled.exported,
    }
    for outlet, found in outlets.items():
        text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
        around = [text[max(0, at - 150) :][:250] for s in SECRETS if (at := text.find(s)) >= 0]
        assert not around, outlet


def test_every_outlet_was_filled(filled: Filled) -> None:
    """Every harmless text is unchanged in every outlet, so that the corpus went through it."""
    spans = _all(filled.exported["traces"], "spans")
    records = _all(filled.exported["logs"], "logRecords")
    points = _all(filled.exported["metrics"], "dataPoints")
    outlets = {
        "events of lines": {line["event"] for line in filled.lines},
        "fields": {line["note"] for line in filled.lines if "note" in line},
        "nested fields": {line["inner"]["list"][1][1] for line in filled.lines if "inner" in line},
        "contexts": {line["context"] for line in filled.lines if "context" in line},
        "bytes": {line["raw"] for line in filled.lines if "raw" in line},
        "bodies": {record["body"]["stringValue"] for record in records},
        "fields of records": _texts(records, "note"),
        "names of spans": {span["name"] for span in spans},
        "attributes of spans": _texts(spans, "note"),
        "keys of attributes": {a["key"] for span in spans for a in span.get("attributes", ())},
        "names of events": {e["name"] for span in spans for e in span.get("events", ())},
        "attributes of events": _texts(_all(spans, "events"), "note"),
        "attributes of links": _texts(_all(spans, "links"), "note"),
        "exceptions": _texts(_all(spans, "events"), "exception.message"),
        "status": {span.get("status", {}).get("message") for span in spans},
        "labels": _texts(points, "note"),
    }

    wrong = {outlet: [*{*HARMLESS} - found][:3] for outlet, found in outlets.items()}
    assert not {outlet: texts for outlet, texts in wrong.items() if texts}
    for text in HARMLESS:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        assert f'amarre_test_texts_total{{note="{escaped}"}} 1.0' in filled.page
    for kind in ("LookupError", "RuntimeError", "UserWarning"):
        assert any(kind in json.dumps(line) for line in filled.lines), kind
        assert any(kind in json.dumps(record) for record in records), kind


def test_harmless_names(filled: Filled) -> None:
    """A value that only describes a credential is unchanged, on stdout as in a span."""
    named = [line for line in filled.lines if line["event"] == "named"]
    spans = [s for s in _all(filled.exported["traces"], "spans") if s["name"] == "named"]

    for key, found in HARMLESS_VALUES:
        # The name of a process is its own, whatever a field says.
        assert any(line.get(key) == found for line in named), key
        assert any(key == each["key"] for span in spans for each in span["attributes"]), key


def test_resource(filled: Filled) -> None:
    """Resource attributes from the environment are redacted, too."""
    for signal, resources in filled.exported.items():
        facts = {
            each["key"]: each["value"].get("stringValue")
            for each in resources[0]["resource"]["attributes"]
        }
        assert ("[redacted]", "[redacted]", "mesh") == (
            facts["app.password"],
            facts["app.mail"],
            facts["team"],
        ), signal


def test_corpus_is_large(filled: Filled) -> None:
    """At least 100 texts with a credential and 100 harmless ones went through."""
    assert min(len(TEXTS), len(HARMLESS)) >= 100
    assert len(filled.lines) > 10 * len(TEXTS)


def _all(found: Any, key: str) -> list[dict[str, Any]]:
    """Return the items of every list named *key* in *found*, at any depth."""
    if isinstance(found, list):
        return [each for one in found for each in _all(one, key)]
    if not isinstance(found, dict):
        return []
    inner = [each for name, one in found.items() if name != key for each in _all(one, key)]
    return [*found.get(key, ()), *inner]


def _texts(items: list[dict[str, Any]], key: str) -> set[str]:
    return {
        each["value"].get("stringValue")
        for item in items
        for each in item.get("attributes", ())
        if each["key"] == key
    }
