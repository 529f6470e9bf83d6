"""Attributes above the limits: what is truncated, and what is stored in any case."""

import json
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from mesh.console import naming
from mesh.console.intake import otlp_attributes
from mesh.console.intake.otlp_attributes import MAX_ATTRIBUTES, MAX_CHARACTERS, MAX_TEXT, MEANINGFUL
from tests.mesh.console.conftest import Kept
from tests.mesh.console.telemetry import Batch, logs


def nested(levels: int) -> AnyValue:
    """Return a text within as many arrays."""
    found = AnyValue(string_value="x")
    for _ in range(levels):
        outer = AnyValue()
        outer.array_value.values.append(found)
        found = outer
    return found


def texts(count: int, length: int = 1) -> AnyValue:
    found = AnyValue()
    for _ in range(count):
        found.array_value.values.add(string_value="x" * length)
    return found


def table(entries: int, *, key: str = "k", length: int = 120) -> AnyValue:
    found = AnyValue()
    for number in range(entries):
        found.kvlist_value.values.add(key=f"{key}{number}").value.string_value = "x" * length
    return found


FILLERS: dict[str, list[KeyValue]] = {
    "one large": [KeyValue(key="big", value=table(200, length=300))],
    "many": [KeyValue(key=f"k{n}", value=AnyValue(int_value=n)) for n in range(10_000)],
    "many large": [
        KeyValue(key=f"k{n}", value=AnyValue(string_value="x" * 2000)) for n in range(40)
    ],
    "one key": [KeyValue(key="", value=AnyValue(int_value=n)) for n in range(10_000)],
}


@pytest.mark.parametrize("fillers", FILLERS.values(), ids=FILLERS)
def test_meaning_after_the_limit(kept: Kept, fillers: list[KeyValue]) -> None:
    """
    The status of a span and the name of its service count whatever attributes precede them.

    A span loses only attributes that exceed a limit, and the loss is counted (OpenTelemetry
    specification, Attribute Limits).
    """
    batch = Batch()
    span = batch.span("survey", "x")
    span.attributes.extend(fillers)
    span.attributes.add(key="http.response.status_code").value.int_value = 503
    resource = batch.request.resource_spans[0].resource
    named = list(resource.attributes)
    del resource.attributes[:]
    resource.attributes.extend([*fillers, *named])
    kept.take("traces", batch.request)

    ((service, error, code, text),) = kept.rows(
        "SELECT s.name, error, code, attributes FROM spans JOIN services s ON s.id = service"
    )
    assert ("survey", 1, "503") == (service, error, code)
    assert 503 == json.loads(text)["http.response.status_code"]
    assert len(text) < MAX_TEXT + 100
    assert 1 == kept.dropped()[("attributes_cut", "survey")]


def test_small_after_large(kept: Kept) -> None:
    """
    An attribute that no longer fits does not cost the smaller ones after it.
    """
    batch = Batch()
    large = {f"large{number}": "x" * 2000 for number in range(12)}
    batch.span("survey", "x", **dict[str, Any](large), last="small")
    kept.take("traces", batch.request)

    assert "small" == json.loads(kept.rows("SELECT attributes FROM spans")[0][0])["last"]


def test_every_meaning() -> None:
    """
    Every attribute from which the console derives a name, code or kind is among the meaningful.
    """
    asked = set[str]()

    class Asked(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            asked.add(key)
            return default

        def __contains__(self, key: object) -> bool:
            asked.add(str(key))
            return False

    naming.rpc(Asked(), "")
    naming.code(Asked())
    naming.span_name("", Asked())
    naming.is_proxy("", Asked())
    naming.is_probe(Asked(), "", "")
    for kind in (naming.SERVER, naming.CLIENT):
        naming.peer(kind, Asked(), "")

    assert len(asked) > 15
    assert asked <= MEANINGFUL


@pytest.mark.parametrize(
    ("value", "cut"),
    [
        (texts(MAX_ATTRIBUTES), False),
        (texts(MAX_ATTRIBUTES + 1), True),
        (table(20), True),
        (table(2), False),
        (table(1, key="k" * 200), True),
        (nested(otlp_attributes.MAX_DEPTH), False),
        (nested(otlp_attributes.MAX_DEPTH + 1), True),
        (AnyValue(string_value="x" * MAX_CHARACTERS), False),
        (AnyValue(string_value="x" * (MAX_CHARACTERS + 1)), True),
        (AnyValue(bytes_value=b"\xff" * 5000), True),
    ],
)
def test_counted(kept: Kept, value: AnyValue, cut: bool) -> None:
    """
    Every value of which a part is left out is counted as truncated, in attributes and bodies.
    """
    batch = Batch()
    batch.span("survey", "x").attributes.add(key="a").value.CopyFrom(value)
    kept.take("traces", batch.request)
    request = logs("auth", "x")
    request.resource_logs[0].scope_logs[0].log_records[0].attributes.add(key="a").value.CopyFrom(
        value
    )
    kept.take("logs", request)

    counted = {("attributes_cut", name): 1 for name in ("survey", "auth")}
    assert (counted if cut else {}) == kept.dropped()


@pytest.mark.parametrize(
    "value",
    [
        texts(MAX_ATTRIBUTES + 1),
        nested(otlp_attributes.MAX_DEPTH + 1),
        texts(9, 1000),
        AnyValue(bytes_value=b"\xff" * 5000),
    ],
)
def test_body(kept: Kept, value: AnyValue) -> None:
    """
    A log record of whose body a part is left out is counted as truncated.
    """
    request = logs("auth", "x")
    request.resource_logs[0].scope_logs[0].log_records[0].body.CopyFrom(value)
    kept.take("logs", request)

    assert {("attributes_cut", "auth"): 1} == kept.dropped()
