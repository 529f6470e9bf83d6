"""
Strict OTLP parser: the bytes of a request to its message, or an error for the sender.

Source:
    OTLP specification 1.9 (JSON Protobuf Encoding, OTLP/HTTP Request); ProtoJSON; RFC 8259;
    RFC 1952 section 2.2 (a gzip file consists of members) and RFC 9110 section 8.4.1.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mesh.console.intake import otlp_messages, otlp_salvage
from mesh.contract import redaction

MAX_BYTES = 16 * 1024 * 1024
"""The maximum size of a request after decompression."""
MAX_MEMBERS = 1000
"""The maximum number of gzip members: empty ones would make a body of any length."""
PROTOBUF, JSON = "application/x-protobuf", "application/json"
REQUESTS: Mapping[str, Any] = {
    "traces": ExportTraceServiceRequest,
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}
"""The request message of each signal."""
_READ: Mapping[str, Any] = {**REQUESTS, "traces": otlp_messages.TRACES, "logs": otlp_messages.LOGS}
"""The message that each signal is parsed as."""
_ROOTS = {
    "traces": {"resourceSpans", "resource_spans"},
    "logs": {"resourceLogs", "resource_logs"},
    "metrics": {"resourceMetrics", "resource_metrics"},
}
_IDS = {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}
_BAD_ID = base64.b64encode(b"\xff").decode()
"""Replaces an id that is not hexadecimal: no id has one byte."""
_NO_VALUE = (None,)
"""Replaces what is not JSON: no field has a tuple as its value, so that its item is bad."""
_INTEGER_DIGITS = 20
"""Longer integers are out of range; Python refuses to parse very long ones."""
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class MalformedError(Exception):
    """The request cannot be decoded; the message is for the sender."""


class TooLargeError(Exception):
    """The request exceeds `MAX_BYTES` after decompression."""


class Decompressor:
    """
    Decompresses a body chunk by chunk, up to `MAX_BYTES`.

    A gzip body may consist of several members; a truncated body or trailing data is malformed.
    """

    def __init__(self, coding: str) -> None:
        """
        Raises:
            LookupError: *coding* is not supported.
        """
        self._coding = coding
        self._bits = 0 if coding in {"", "identity"} else _WINDOW_BITS[coding]
        self._member = zlib.decompressobj(wbits=self._bits) if self._bits else None
        self._body = bytearray()
        self._members = 1

    def feed(self, chunk: bytes) -> None:
        """
        Add the next chunk.

        Raises:
            MalformedError, TooLargeError: See the classes.
        """
        if self._member is None:
            self._body += chunk
        while self._member is not None and chunk:
            if self._member.eof:
                if self._bits != _WINDOW_BITS["gzip"]:
                    raise MalformedError(f"The body continues after its {self._coding} stream.")
                self._members += 1
                if self._members > MAX_MEMBERS:
                    raise MalformedError(f"The body has more than {MAX_MEMBERS} gzip members.")
                self._member = zlib.decompressobj(wbits=self._bits)
            try:
                self._body += self._member.decompress(chunk, MAX_BYTES + 1 - len(self._body))
            except zlib.error as exc:
                raise MalformedError(f"The body is not valid {self._coding}.") from exc
            if len(self._body) > MAX_BYTES:
                break
            chunk = self._member.unused_data or self._member.unconsumed_tail
        if len(self._body) > MAX_BYTES:
            raise TooLargeError

    def finish(self) -> bytes:
        """
        Return the whole body.

        Raises:
            MalformedError: The compressed stream is incomplete.
        """
        if self._member is not None and not self._member.eof:
            raise MalformedError(f"The {self._coding} stream ends too early.")
        return bytes(self._body)


class Read(NamedTuple):
    """A request, and the number of its items that cannot be decoded and were left out."""

    message: Any
    lost: int


def read(signal: str, body: bytes, encoding: str) -> Read:
    """
    Return the request message in *body*, as `mesh.console.intake.otlp_messages` describes it.

    Raises:
        MalformedError: The body is not an OTLP request for *signal*, or none of its items is valid.
    """
    lost, fault = 0, ""
    try:
        if encoding == JSON:
            message, lost, fault = _from_json(signal, body)
            body = message.SerializeToString()
        try:
            message = _READ[signal].FromString(body)
        except DecodeError:
            body, lost = otlp_salvage.from_protobuf(signal, body)
            message = _READ[signal].FromString(body)
    except (DecodeError, json_format.ParseError, ValueError, RecursionError) as exc:
        raise MalformedError(
            f"This is not a valid OTLP request for {signal}: {_fault(exc)}."
        ) from exc
    if lost and not otlp_salvage.holds_items(message):
        why = f"no item is valid; {fault}" if fault else "no item is valid"
        raise MalformedError(f"This is not a valid OTLP request for {signal}: {why}.")
    return Read(message, lost)


def _fault(exc: Exception) -> str:
    """Return why a request is malformed, for its sender."""
    if isinstance(exc, RecursionError):
        return "it is nested too deeply"
    return redaction.cut(str(exc).encode(errors="replace").decode().rstrip("."), 300)


def _from_json(signal: str, body: bytes) -> tuple[Any, int, str]:
    """Return the message, how many of its items are left out, and why."""
    # RFC 8259 allows only UTF-8; json.loads also detects UTF-16 and UTF-32. A text that is not
    # UTF-8 gets lone surrogates, which no field accepts, so that it costs only its item.
    found = json.loads(
        body.decode(errors="surrogateescape"),
        object_pairs_hook=_object,
        parse_int=_integer,
        parse_constant=lambda _: _NO_VALUE,
    )
    if not isinstance(found, dict):
        what = "a key is given twice" if isinstance(found, tuple) else "not an object"
        raise MalformedError(f"This is not a valid OTLP request for {signal}: {what}.")
    for other, roots in _ROOTS.items():
        if other != signal and not roots.isdisjoint(found):
            raise MalformedError(
                f"This request contains {other} and is not a valid OTLP request for {signal}; "
                f"send it to /v1/{other}."
            )
    message = REQUESTS[signal]()
    try:
        json_format.ParseDict(found, message, ignore_unknown_fields=True)
    except otlp_salvage.ERRORS as exc:
        message.Clear()
        return message, otlp_salvage.from_json(found, message), _fault(exc)
    return message, 0, ""


def _object(pairs: list[tuple[str, Any]]) -> Any:
    """
    Return a JSON object with its ids in base64, which OTLP writes in hexadecimal.

    An object with a key that is given twice is in a tuple, so that its item is bad.
    """
    found = {key: _base64(value) if key in _IDS else value for key, value in pairs}
    return found if len(found) == len(pairs) else (found,)


def _base64(value: Any) -> Any:
    if value is None:
        return None  # ProtoJSON: null is an absent field.
    try:
        return base64.b64encode(bytes.fromhex(value)).decode()
    except (TypeError, ValueError, binascii.Error):
        return _BAD_ID


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= _INTEGER_DIGITS else float(text)
