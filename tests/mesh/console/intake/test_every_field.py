"""
Every field of every OTLP message, filled with credentials or with extreme values.

The fields come from the descriptors, so that a field that OTLP adds is covered.
"""

import json
import random
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message

from mesh.console.intake.otlp_reader import REQUESTS
from tests.mesh.console.conftest import Kept, Running
from tests.mesh.console.telemetry import now
from tests.mesh.contract.redaction_corpus import TEXTS, P

ITEMS = {
    *("resource_spans", "scope_spans", "spans", "resource_logs", "scope_logs", "log_records"),
    *("resource_metrics", "scope_metrics", "metrics", "data_points"),
}
_FLOATS = (0.0, -0.0, 1.5, float("nan"), float("inf"), float("-inf"), 1.8e308, -1.8e308, 5e-324)
_TEXTS = ("", "a", "\0", "x" * 3000, "\x1b[31m", "<b>", "'\"\\", "\u202e", "__proto__", "NaN", "{}")
_KEYS = ("service.name", "rpc.method", "http.route", "http.request.method", "event.name", "kind")


def fill(message: Message, choose: random.Random, values: Any) -> None:
    """Set every field of *message*, and one of each oneof, to what *values* returns."""
    choices: dict[str, list[Any]] = {}
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        choices.setdefault(oneof.name if oneof else f"={field.name}", []).append(field)
    for fields in choices.values():
        field = choose.choice(fields)
        count = (
            choose.choice((1, 2) if field.name in ITEMS else (0, 1, 2)) if field.is_repeated else 1
        )
        target = getattr(message, field.name)
        if field.message_type and choose.random() < 0.9:
            for _ in range(count):
                fill(target.add() if field.is_repeated else target, choose, values)
        elif field.is_repeated and not field.message_type:
            target.extend(values(field, choose) for _ in range(count))
        elif not field.message_type:
            setattr(message, field.name, values(field, choose))


def _common(field: Any, choose: random.Random) -> Any:
    """Return a value that lets most items be stored."""
    match field.type:
        case Field.TYPE_BYTES if field.name.endswith("_id"):
            return choose.randbytes(16 if "trace" in field.name else 8)
        case _ if field.name.endswith("unix_nano"):
            return now()
        case Field.TYPE_ENUM:
            return choose.choice(field.enum_type.values).number
        case Field.TYPE_DOUBLE | Field.TYPE_FLOAT:
            return 1.0
        case Field.TYPE_BYTES:
            return b"bytes"
        case Field.TYPE_BOOL:
            return True
    return int(field.name != "flags")


def planted(field: Any, choose: random.Random) -> Any:
    """Return a credential for a text, and something harmless for anything else."""
    if field.type == Field.TYPE_STRING:
        named = field.name == "key" and choose.random() < 0.5
        return choose.choice(_KEYS) if named else choose.choice(TEXTS)
    if field.type == Field.TYPE_BYTES and not field.name.endswith("_id"):
        return choose.choice(TEXTS).encode()
    return _common(field, choose)


_BITS = {
    **dict.fromkeys((Field.TYPE_UINT32, Field.TYPE_FIXED32), (0, 2**32 - 1)),
    **dict.fromkeys((Field.TYPE_UINT64, Field.TYPE_FIXED64), (0, 2**64 - 1)),
    **dict.fromkeys((Field.TYPE_INT32, Field.TYPE_SINT32, Field.TYPE_ENUM), (-(2**31), 2**31 - 1)),
    **dict.fromkeys((Field.TYPE_INT64, Field.TYPE_SFIXED64), (-(2**63), 2**63 - 1)),
}


def extreme(field: Any, choose: random.Random) -> Any:
    """Return the value of a field, more often an extreme one than an ordinary one."""
    often = 0.2 if field.name.endswith("_id") or field.name.endswith("unix_nano") else 0.7
    if choose.random() > often:
        return "service.name" if field.name == "key" else _ordinary(field, choose)
    match field.type:
        case Field.TYPE_STRING:
            return choose.choice(_TEXTS)
        case Field.TYPE_BYTES:
            return choose.choice((b"", b"\0" * 8, b"\0" * 16, b"\xff" * 15, b"\xff\xfe"))
        case Field.TYPE_DOUBLE | Field.TYPE_FLOAT:
            return choose.choice(_FLOATS)
        case Field.TYPE_BOOL:
            return choose.random() < 0.5
    return choose.choice((0, 1, *_BITS[field.type]))


def _ordinary(field: Any, choose: random.Random) -> Any:
    return "text" if field.type == Field.TYPE_STRING else _common(field, choose) or 0


@pytest.mark.parametrize("signal", sorted(REQUESTS))
def test_redacted(kept: Kept, signal: str) -> None:
    """
    A credential in any text or bytes of any message is stored nowhere.

    Fails if `Span.rpc` or bytes are stored as received.
    """
    for seed in range(120):
        request = REQUESTS[signal]()
        fill(request, random.Random(seed), planted)
        kept.take(signal, request)

    tables = [name for (name,) in kept.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    stored = [str(row) for name in tables for row in kept.rows(f"SELECT * FROM {name}")]
    assert len(stored) > 40
    assert not [row for row in stored if P in row or P.encode().hex() in row]


async def test_extremes(running: Running) -> None:
    """
    Extreme values in any field fail neither a request nor a query of what is stored.

    Fails if differences that overflow, or buckets with the bound 0, are not handled.
    """
    for seed in range(60):
        for signal, kind in REQUESTS.items():
            request = kind()
            fill(request, random.Random(seed), extreme)
            await running.take(signal, request)

    for path in ("traces", "logs", "metrics", "graph", "incidents"):
        answer = await running.client.get(f"{running.url}/api/{path}")
        assert 200 == answer.status_code
        json.loads(answer.text, parse_constant=pytest.fail)
    for series in (await running.get("series"))["items"]:
        answer = await running.client.get(
            f"{running.url}/api/series", params={"name": series["name"][:500]}
        )
        assert 200 == answer.status_code
        json.loads(answer.text, parse_constant=pytest.fail)
    found = (await running.get("traces", limit=500))["items"]
    assert found
    for trace in found:
        await running.get(f"traces/{trace['traceId']}")


async def test_overflow(running: Running) -> None:
    """A rate that overflows, and a percentile in a bucket whose bounds are 0, are null or 0."""
    request = REQUESTS["metrics"]()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    counter = metrics.add(name="big").sum
    counter.is_monotonic, counter.aggregation_temporality = True, 1
    begin = now() - 10_000_000_000
    for second, value in enumerate((1.7e308, 1.7e308)):
        counter.data_points.add(time_unix_nano=begin + second * 1_000_000_000, as_double=value)
    small = metrics.add(name="small").exponential_histogram
    small.aggregation_temporality = 1
    for second in range(2):
        point = small.data_points.add(time_unix_nano=begin + second * 1_000_000_000, count=1)
        point.scale, point.positive.offset = -10, -(2**31)
        point.positive.bucket_counts.append(1)
    await running.take("metrics", request)

    (big,) = (await running.get("series", name="big"))["items"]
    (small_one,) = (await running.get("series", name="small"))["items"]
    assert big["count"] is None
    assert small_one["p50"] == 0
