"""
OTLP attributes prepared for storage: truncated where too large, and redacted.

Results are cached by the bytes of an attribute, because most attributes repeat in every item.
"""

import contextlib
import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from mesh.contract import redaction

MAX_ATTRIBUTES = 96
MAX_CHARACTERS = 2048
MAX_TEXT = 16_384
MAX_DEPTH = 4
MAX_KEY = 200
EXACT_INTEGER = 2**53
"""Integers above this lose digits in JavaScript; they are kept as text."""
_REMEMBERED = 8192
_REMEMBERED_BYTES = 256
"""The longest attribute that is cached, in bytes."""
MEANINGFUL = frozenset(
    {"service.name", "service.namespace", "service.instance.id"}
    | {"peer.service", "component", "upstream_cluster", "event.name"}
    | {"rpc.service", "rpc.method", "grpc.path", "amarre.caller", "amarre.caller_id"}
    | {"rpc.response.status_code", "rpc.grpc.status_code", "grpc.status_code"}
    | {"http.response.status_code", "http.status_code", "http.request.method", "http.method"}
    | {"http.route", "http.target", "http.url", "url.path"}
)
"""Attributes that say what an item is; read and stored however many come before them."""
_MEANINGFUL_PAIRS = tuple(KeyValue(key=key).SerializeToString() for key in MEANINGFUL)

to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
"""Encodes compact JSON; searches rely on its exact form."""


class _Attribute(NamedTuple):
    key: str
    value: Any
    text: str
    """Key and value as members of a JSON object."""
    was_cut: bool
    was_redacted: bool


@dataclass
class Attributes:
    """The attributes of one item, and how they were changed."""

    values: dict[str, Any] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    """The members of the JSON object; a key that was given twice occurs twice."""
    were_cut: bool = False
    redacted: int = 0
    """The number of redacted attributes."""

    def to_json(self, more: "Attributes | None" = None) -> str:
        """Return one JSON object of these and *more*; *more* takes precedence."""
        texts = self.texts if more is None else self.texts + more.texts
        values = self.values if more is None else self.values | more.values
        return f"{{{','.join(texts)}}}" if len(texts) == len(values) else to_json(values)


def read(pairs: Iterable[bytes]) -> Attributes:
    """
    Return the attributes to store for *pairs*, serialized ``KeyValue`` messages.

    Raises:
        DecodeError: One of them is not a ``KeyValue`` message.
    """
    found = Attributes()
    room = MAX_TEXT
    values, texts = found.values, found.texts
    for pair in pairs:
        # Serializers write the key first; other attributes above the limit are not even decoded.
        if len(texts) >= MAX_ATTRIBUTES and not pair.startswith(_MEANINGFUL_PAIRS):
            found.were_cut = True
            continue
        known = _remembered(pair) if len(pair) <= _REMEMBERED_BYTES else _read(pair)
        key, value, text, was_cut, was_redacted = known
        found.redacted += was_redacted
        size = len(text)
        if size > room and key not in MEANINGFUL:
            found.were_cut = True
            continue
        room -= size
        if was_cut:
            found.were_cut = True
        values[key] = value
        texts.append(text)
    return found


def _read(pair: bytes) -> _Attribute:
    decoded = KeyValue.FromString(pair)
    value, was_cut = plain(decoded.value), not is_whole(decoded.value)
    if isinstance(value, str) and len(value) > MAX_CHARACTERS:
        start, was_cut = redaction.cut(value, MAX_CHARACTERS), True
        value = redaction.value(decoded.key, f"{start}… ({len(value)} characters)")
    else:
        value = redaction.value(decoded.key, value)
    was_redacted = value == redaction.REDACTED
    if isinstance(value, list | dict):
        text = to_json(value)
        if len(text) > MAX_CHARACTERS:
            value, was_cut = f"{text[:MAX_CHARACTERS]}… ({len(text)} characters)", True
    key = redaction.cut(decoded.key, MAX_KEY)
    was_cut |= len(decoded.key) > MAX_KEY
    return _Attribute(key, value, f"{to_json(key)}:{to_json(value)}", was_cut, was_redacted)


_remembered = functools.lru_cache(maxsize=_REMEMBERED)(_read)


def _text_or_hex(found: bytes) -> str:
    """Return bytes as text where they are text, so that the redaction rule can read them."""
    with contextlib.suppress(UnicodeDecodeError):
        text = found.decode()
        if all(each.isprintable() or each.isspace() for each in text):
            return text
    return found[:MAX_TEXT].hex()


def plain(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return an AnyValue as a JSON value, truncated below *depth*."""
    kind = value.WhichOneof("value")
    match kind:
        case None:
            return None
        case "string_value" | "bool_value":
            return getattr(value, kind)
        case "int_value":
            number = value.int_value
            return number if abs(number) <= EXACT_INTEGER else str(number)
        case "double_value":
            number = value.double_value
            return number if abs(number) < 1e300 else str(number)
        case "bytes_value":
            return _text_or_hex(value.bytes_value)
        case _ if depth == 0:
            return "…"
        case "array_value":
            return [plain(one, depth - 1) for one in value.array_value.values[:MAX_ATTRIBUTES]]
        case _:
            return {
                redaction.cut(pair.key, MAX_KEY): plain(pair.value, depth - 1)
                for pair in value.kvlist_value.values[:MAX_ATTRIBUTES]
            }


def is_whole(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Return whether `plain` returns all entries of an AnyValue."""
    kind = value.WhichOneof("value")
    if kind not in {"array_value", "kvlist_value"}:
        return True
    entries = getattr(value, kind).values
    if depth == 0 or len(entries) > MAX_ATTRIBUTES:
        return False
    if kind == "array_value":
        return all(is_whole(one, depth - 1) for one in entries)
    return all(len(one.key) <= MAX_KEY and is_whole(one.value, depth - 1) for one in entries)
