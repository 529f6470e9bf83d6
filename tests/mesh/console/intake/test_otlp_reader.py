"""The strict OTLP parser: compressed bodies, JSON, and the standards' requirements."""

import contextlib
import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from mesh.console.intake import otlp_reader
from mesh.console.intake.otlp_reader import (
    JSON,
    MAX_BYTES,
    MAX_MEMBERS,
    PROTOBUF,
    Decompressor,
    MalformedError,
    TooLargeError,
)
from tests.mesh.console.telemetry import Batch

BODY = b"the body " * 50


def decompress(coding: str, body: bytes, *, size: int = 7) -> bytes:
    whole = Decompressor(coding)
    for at in range(0, len(body), size):
        whole.feed(body[at : at + size])
    return whole.finish()


class TestDecompressor:
    @pytest.mark.parametrize(
        ("coding", "body", "expected"),
        [
            ("identity", BODY, BODY),
            ("", b"", b""),
            ("gzip", gzip.compress(BODY), BODY),
            ("x-gzip", gzip.compress(BODY), BODY),
            ("deflate", zlib.compress(BODY), BODY),
            ("gzip", gzip.compress(BODY) + gzip.compress(b"and more"), BODY + b"and more"),
            ("gzip", gzip.compress(b"") + gzip.compress(BODY) + gzip.compress(b""), BODY),
        ],
        ids=["identity", "none", "gzip", "x-gzip", "deflate", "two members", "empty members"],
    )
    @pytest.mark.parametrize("size", [1, 7, 100_000])
    def test_whole(self, coding: str, body: bytes, expected: bytes, size: int) -> None:
        """
        Each coding is decompressed, with all gzip members, however it is chunked.

        Source: RFC 1952, section 2.2; RFC 9110, section 8.4.1.
        """
        assert expected == decompress(coding, body, size=size)

    @pytest.mark.parametrize(
        ("coding", "body"),
        [
            ("gzip", gzip.compress(BODY)[:-1]),
            ("gzip", gzip.compress(BODY)[:20]),
            ("gzip", b""),
            ("gzip", gzip.compress(BODY) + gzip.compress(BODY)[:-5]),
            ("gzip", gzip.compress(BODY) + b"rest"),
            ("gzip", zlib.compress(BODY)),
            ("deflate", gzip.compress(BODY)),
            ("deflate", zlib.compress(BODY)[:-1]),
            ("deflate", zlib.compress(BODY) + zlib.compress(BODY)),
            ("gzip", BODY),
        ],
        ids=[
            *("truncated", "header", "empty", "second truncated", "garbage", "zlib as gzip"),
            *("gzip as deflate", "deflate truncated", "deflate twice", "plain"),
        ],
    )
    def test_malformed(self, coding: str, body: bytes) -> None:
        """
        A truncated stream, another coding or trailing bytes make a body malformed.
        """
        with pytest.raises(MalformedError):
            decompress(coding, body, size=100_000)

    def test_bomb(self) -> None:
        """
        Decompression stops at the limit, also across several members.
        """
        half = gzip.compress(bytes(MAX_BYTES // 2 + 1))
        with pytest.raises(TooLargeError):
            decompress("gzip", half + half, size=4096)

    def test_many_members(self) -> None:
        """
        Members that decompress to nothing are limited: a megabyte of them took three seconds.
        """
        member = gzip.compress(b"")
        decompress("gzip", member * MAX_MEMBERS, size=4096)
        with pytest.raises(MalformedError):
            decompress("gzip", member * (MAX_MEMBERS + 1), size=4096)

    def test_unknown(self) -> None:
        """
        An unsupported coding is rejected, not guessed.
        """
        with pytest.raises(LookupError):
            Decompressor("br")


def span(**fields: Any) -> bytes:
    whole = {"traceId": "01" * 16, "spanId": "02" * 8, "name": "x"} | fields
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [whole]}]}]}).encode()


def read(body: bytes, signal: str = "traces") -> Any:
    return otlp_reader.read(signal, body, JSON).message


class TestJson:
    @pytest.mark.parametrize("parent", [None, ""])
    def test_null(self, parent: Any) -> None:
        """
        Null is an absent field, also for ids (ProtoJSON).
        """
        found = read(span(parentSpanId=parent, attributes=None, status=None, kind=None))

        (only,) = found.resource_spans[0].scope_spans[0].spans
        assert (b"", 0) == (only.parent_span_id, only.kind)

    def test_upper_case_id(self) -> None:
        """
        Ids are hexadecimal in either case (OTLP, JSON Protobuf Encoding).
        """
        found = read(span(traceId="AB" * 16))
        assert b"\xab" * 16 == found.resource_spans[0].scope_spans[0].spans[0].trace_id

    @pytest.mark.parametrize("number", [2**63 - 1, str(2**63 - 1), -(2**63), str(-(2**63))])
    def test_64_bits(self, number: Any) -> None:
        """
        64-bit integers are accepted as decimal strings and as numbers, without loss (ProtoJSON).
        """
        found = read(span(attributes=[{"key": "n", "value": {"intValue": number}}]))

        (pair,) = found.resource_spans[0].scope_spans[0].spans[0].attributes
        assert int(number) == KeyValue.FromString(pair).value.int_value

    @pytest.mark.parametrize("kind", [-7, 99, "SPAN_KIND_OF_TOMORROW"])
    def test_unknown_enum(self, kind: Any) -> None:
        """
        An unknown enum value does not fail the request.
        """
        assert 1 == len(read(span(kind=kind)).resource_spans)

    @pytest.mark.parametrize(
        "body",
        [
            b'{"resourceSpans": NaN}',
            b'{"resourceSpans": [], "resourceSpans": []}',
            span().decode().encode("utf-16"),
            b"\xef\xbb\xbf{}",
            b'{"resourceSpans": ["\xff"]}',
            b'{"resourceSpans": [null]}',
            span(name="\ud800"),
            span(startTimeUnixNano="1" * 5000),
            b'{"a":' * 5000,
            b"[]",
            b"3",
            b"",
        ],
        ids=[
            *("NaN", "duplicate", "UTF-16", "BOM", "not UTF-8", "null element"),
            *("surrogate", "huge number", "deep", "array", "number", "empty"),
        ],
    )
    def test_malformed(self, body: bytes) -> None:
        """
        Invalid JSON (RFC 8259) or ProtoJSON is malformed, never a crash.
        """
        with pytest.raises(MalformedError, match="not a valid OTLP request"):
            read(body)

    @pytest.mark.parametrize(
        ("body", "why"),
        [
            (b"{", "line 1 column 2"),
            (b'{"resourceSpans": [], "resourceSpans": []}', "a key is given twice"),
            (b"[" * 100_000, "nested too deeply"),
            (b"[]", "not an object"),
            (span(kind=[]), "no item is valid; Failed to parse .*kind"),
            (span(name="\ud800 password=planted"), "no item is valid"),
        ],
    )
    def test_why(self, body: bytes, why: str) -> None:
        """
        The error says what is wrong with the request, without its credentials.
        """
        with pytest.raises(MalformedError, match=why) as ei:
            read(body)
        assert "planted" not in str(ei.value)
        str(ei.value).encode()

    @pytest.mark.parametrize("signal", ["logs", "metrics"])
    def test_wrong_signal(self, signal: str) -> None:
        """
        A request for another signal is rejected with the right path.
        """
        with pytest.raises(MalformedError, match="send it to /v1/traces"):
            read(span(), signal)


@settings(max_examples=150, deadline=None)
@given(body=st.binary(max_size=300), encoding=st.sampled_from([JSON, PROTOBUF]))
def test_any_bytes(body: bytes, encoding: str) -> None:
    """
    Arbitrary bytes are either a request or malformed.
    """
    with contextlib.suppress(MalformedError):
        assert otlp_reader.read("traces", body, encoding).message.IsInitialized()


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, 400), flip=st.integers(0, 400), bit=st.integers(0, 7))
def test_damaged_request(cut: int, flip: int, bit: int) -> None:
    """
    A real request that is truncated or has a flipped bit is either a request or malformed.
    """
    batch = Batch()
    batch.call(b"t" * 16)
    body = bytearray(batch.request.SerializeToString()[: cut + 1])
    body[flip % len(body)] ^= 1 << bit
    with contextlib.suppress(MalformedError):
        assert otlp_reader.read("traces", bytes(body), PROTOBUF).message.IsInitialized()
