"""
One bad item does not affect the others, also where the encoding of an item is invalid.

The specification lets a receiver answer 400 to a whole request (OTLP/HTTP, Bad Data); here only
the bad items are rejected, as partial success, unless none is good.
"""

import asyncio
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format

from mesh.console.intake import otlp_reader
from mesh.console.intake.otlp_reader import JSON, PROTOBUF, REQUESTS, MalformedError
from mesh.console.store.rows import Span
from tests.mesh.console.conftest import Kept, Running
from tests.mesh.console.telemetry import now

GOOD: dict[str, dict[str, Any]] = {
    "traces": {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
        "name": "good",
        "startTimeUnixNano": "1",
        "endTimeUnixNano": "2",
    },
    "logs": {"timeUnixNano": "1", "body": {"stringValue": "good"}},
    "metrics": {"name": "good", "gauge": {"dataPoints": [{"timeUnixNano": "1", "asDouble": 1}]}},
}
LISTS = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
}
_ATTRIBUTES = (
    *({"intValue": "9223372036854775808"}, {"boolValue": "true"}, {"bytesValue": 5}),
    *({"boolValue": True, "stringValue": "two of a oneof"}, {"arrayValue": 5}, 5),
)
BAD_FIELDS: tuple[dict[str, Any], ...] = (
    *({"attributes": [{"key": "a", "value": value}]} for value in _ATTRIBUTES),
    *({"attributes": {}}, {"attributes": [None]}, {"attributes": [1]}, {"attributes": "a"}),
    *({"flags": 2**32}, {"flags": -1}, {"flags": "x"}, {"flags": 1.5}),
    {"timeUnixNano": str(2**64), "startTimeUnixNano": str(2**64)},
    {"timeUnixNano": "-5", "startTimeUnixNano": "-5"},
    {"timeUnixNano": "soon", "startTimeUnixNano": []},
)


class _Raw(str):
    """What stands in the JSON as it is."""


BAD_OF: dict[str, tuple[dict[str, Any], ...]] = {
    "traces": (
        *({"name": 5}, {"name": []}, {"name": "\ud800"}, {"events": [{"name": 5}]}),
        *(
            {"status": {"code": []}},
            {"\ud800": 5},
            {"links": [{"attributes": 5}]},
            {"kind": _Raw("1" * 5000)},
        ),
        {"traceId": _Raw('"", "traceId": ""')},
    ),
    "logs": (
        *({"body": {"stringValue": 5}}, {"body": 5}, {"severityNumber": _Raw("NaN")}),
        {"body": _Raw('{"intValue": 1, "intValue": 1}')},
    ),
    "metrics": (
        *({"asDouble": "many"}, {"asInt": 1.5}, {"asInt": _Raw("9" * 5000)}),
        {"attributes": [{"key": _Raw('"a\udcff"'), "value": {"intValue": 1}}]},
    ),
}
CASES = [(signal, bad) for signal in GOOD for bad in (*BAD_FIELDS, *BAD_OF[signal])]


def encoded(whole: Any) -> bytes:
    """Return JSON with every `_Raw` as it is, and low surrogates as the bytes that they escape."""
    raw = list[str]()

    def mark(found: Any) -> Any:
        match found:
            case _Raw():
                raw.append(str(found))
                return f"raw {len(raw) - 1}."
            case dict():
                return {key: mark(value) for key, value in found.items()}
            case list():
                return [mark(value) for value in found]
        return found

    text = json.dumps(mark(whole))
    for number, value in enumerate(raw):
        text = text.replace(f'"raw {number}."', value)
    return text.encode(errors="surrogateescape")


def request(signal: str, *items: Any, resource: Any = None) -> dict[str, Any]:
    resources, scopes, list_ = LISTS[signal]
    return {resources: [{"resource": resource, scopes: [{list_: list(items)}]}]}


def with_bad(signal: str, bad: dict[str, Any]) -> Any:
    """Return an item of *signal* with the fields *bad*: of a metric, in a point of its own."""
    item = copy.deepcopy(GOOD[signal])
    if signal == "metrics":
        item["gauge"]["dataPoints"].insert(0, item["gauge"]["dataPoints"][0] | bad)
        return item
    return item | bad


@pytest.mark.parametrize(("signal", "bad"), CASES, ids=lambda each: json.dumps(each)[:60])
def test_json(signal: str, bad: dict[str, Any]) -> None:
    """A bad item in JSON is left out and counted; the good ones on both sides of it are kept."""
    items = [GOOD[signal], with_bad(signal, bad), GOOD[signal]]
    found, lost = otlp_reader.read(signal, encoded(request(signal, *items)), JSON)

    assert (1, 3 if signal == "metrics" else 2) == (lost, _count(found))


@pytest.mark.parametrize("signal", GOOD)
@pytest.mark.parametrize("item", [None, 5, 1.5, True])
def test_not_an_object(signal: str, item: Any) -> None:
    """What is not even an object in a list of items is left out."""
    body = json.dumps(request(signal, GOOD[signal], item)).encode()
    found, lost = otlp_reader.read(signal, body, JSON)

    assert (1, 1) == (lost, _count(found))


@pytest.mark.parametrize("signal", GOOD)
def test_bad_resource(signal: str) -> None:
    """A bad resource costs its own items, and not those of another resource."""
    whole = request(signal, GOOD[signal], GOOD[signal], resource={"attributes": "a"})
    for key, value in request(signal, GOOD[signal]).items():
        whole[key] += value
    found, lost = otlp_reader.read(signal, json.dumps(whole).encode(), JSON)

    assert (2, 1) == (lost, _count(found))


@pytest.mark.parametrize("signal", GOOD)
@pytest.mark.parametrize(
    ("place", "bad"),
    [
        *((1, {"scope": {"name": 5}}), (1, {"scope": 5}), (1, {"schemaUrl": 5})),
        *((0, {"schemaUrl": 5}), (0, {"schema_url": []})),
    ],
)
def test_unneeded(signal: str, place: int, bad: dict[str, Any]) -> None:
    """A scope or the address of a schema that cannot be read costs no item."""
    whole = request(signal, GOOD[signal])
    part = whole[LISTS[signal][0]][0]
    (part[LISTS[signal][1]][0] if place else part).update(bad)
    found, lost = otlp_reader.read(signal, json.dumps(whole).encode(), JSON)

    assert (0, 1) == (lost, _count(found))


@pytest.mark.parametrize("bad", [{"traceId": "xyz"}, {"spanId": 5}, {"asInt": "many"}, 5])
def test_exemplar(bad: Any) -> None:
    """An exemplar that cannot be read does not cost its point."""
    items = [GOOD["metrics"], with_bad("metrics", {"exemplars": [bad]})]
    found, lost = otlp_reader.read("metrics", encoded(request("metrics", *items)), JSON)

    assert (0, 3) == (lost, _count(found))


def test_two_kinds() -> None:
    """Points of a metric that has two kinds are counted as lost: it has one of them."""
    both = GOOD["metrics"] | {"sum": {"dataPoints": [{"asInt": 1}, {"asInt": 2}]}}
    body = encoded(request("metrics", GOOD["metrics"], both))
    found, lost = otlp_reader.read("metrics", body, JSON)

    assert (3, 1) == (lost, _count(found))


LINK = {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174"}


@pytest.mark.parametrize("bad", ["abc", "ab", 5, [], "W47/95gDgQPSabYzgT/GDA==", "zz" * 16])
@pytest.mark.parametrize(
    ("signal", "field", "counted"),
    [
        *(("traces", "traceId", "no_ids"), ("traces", "spanId", "no_ids")),
        *(("traces", "parentSpanId", "bad_ids"), ("traces", "links", "bad_ids")),
        *(("logs", "traceId", "bad_ids"), ("logs", "spanId", "bad_ids")),
    ],
)
def test_bad_id(kept: Kept, signal: str, field: str, counted: str, bad: Any) -> None:
    """An invalid id costs the span that it identifies, or a reference, which is counted."""
    at = {
        "startTimeUnixNano": str(now()),
        "endTimeUnixNano": str(now()),
        "timeUnixNano": str(now()),
    }
    links = [LINK, LINK | {"traceId": bad}, LINK | {"spanId": "0" * 16}]
    item = GOOD[signal] | at | {field: links if field == "links" else bad}
    message, lost = otlp_reader.read(signal, json.dumps(request(signal, item)).encode(), JSON)
    found = kept.decoder.decode(signal, message, lost=lost)

    assert {(counted, "unknown"): 2 if field == "links" else 1} == kept.dropped()
    assert (0 if counted == "no_ids" else 1) == len(found.rows)
    assert field != "links" or [1] == [
        len(row.links) for row in found.rows if isinstance(row, Span)
    ]


@pytest.mark.parametrize("signal", GOOD)
@pytest.mark.parametrize("where", ["item", "attribute", "resource", "scope"])
def test_protobuf(signal: str, where: str) -> None:
    """A text that is not UTF-8 costs its own item or resource, and a scope only itself."""
    message = REQUESTS[signal]()
    json_format.ParseDict(
        {k: v * 2 for k, v in request(signal, GOOD[signal], GOOD[signal]).items()}, message
    )
    marks: dict[str, Callable[[Any, Any, Any], Any]] = {
        "item": lambda resource, scope, item: setattr(
            item, "severity_text" if signal == "logs" else "name", "PLANTED"
        ),
        "attribute": lambda resource, scope, item: (
            item.gauge.data_points[0] if signal == "metrics" else item
        ).attributes.add(key="PLANTED"),
        "resource": lambda resource, scope, item: resource.resource.attributes.add(key="PLANTED"),
        "scope": lambda resource, scope, item: setattr(scope.scope, "name", "PLANTED"),
    }
    resource = message.ListFields()[0][1][0]
    scope = resource.ListFields()[-1][1][0]
    marks[where](resource, scope, scope.ListFields()[0][1][0])
    body = message.SerializeToString().replace(b"PLANTED", b"PL\xff\xfe\xc3ED")
    found, lost = otlp_reader.read(signal, body, PROTOBUF)

    if where == "attribute" and signal != "metrics":
        # Attributes of spans and log records are decoded later, and cost their item then.
        assert (0, 4) == (lost, _count(found))
        return
    expected = {"scope": (0, 4), "resource": (2, 2)}.get(where, (1, 3))
    assert expected == (lost, _count(found))


@pytest.mark.parametrize("signal", GOOD)
def test_none_is_good(signal: str) -> None:
    """If no item can be decoded, the request is malformed, as its sender has to know."""
    with pytest.raises(MalformedError, match="no item is valid"):
        otlp_reader.read(signal, json.dumps(request(signal, None, 5)).encode(), JSON)


async def test_told(running: Running) -> None:
    """The sender gets the number of rejected items, the console counts them, the rest is stored."""
    good = GOOD["traces"] | {"startTimeUnixNano": str(now()), "endTimeUnixNano": str(now())}
    body = json.dumps(request("traces", good, good | {"name": 5})).encode()
    answer = await running.client.post(
        f"{running.otlp}/v1/traces", content=body, headers={"content-type": JSON}
    )

    assert 200 == answer.status_code
    told = answer.json()["partialSuccess"]
    assert ("1", "Rejected: 1 items that could not be decoded.") == (
        told["rejectedSpans"],
        told["errorMessage"],
    )
    async with asyncio.timeout(10):
        while not (await running.get("traces"))["items"]:
            await asyncio.sleep(0.05)
    await running.get(f"traces/{good['traceId']}")


def _count(message: Any) -> int:
    """Return the number of spans, log records or data points in *message*."""
    count = 0
    for resource in message.ListFields()[0][1]:
        for field, scopes in resource.ListFields():
            for scope in scopes if field.name.startswith("scope_") else ():
                for name, items in scope.ListFields():
                    if name.name == "metrics":
                        count += sum(len(item.gauge.data_points) for item in items)
                    elif field.is_repeated and name.is_repeated:
                        count += len(items)
    return count
