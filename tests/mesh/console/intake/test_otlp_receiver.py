"""The OTLP receiver with real exporters and malicious clients."""

import asyncio
import gzip
import json
import os
import zlib
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from mesh.console.intake.otlp_reader import MAX_BYTES
from tests.mesh.console.conftest import Running, Start
from tests.mesh.console.telemetry import Batch, logs, now

PROTOBUF = {"content-type": "application/x-protobuf"}
EXPORT = "/opentelemetry.proto.collector.{0}.v1.{1}Service/Export"


async def send(running: Running, body: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await running.client.post(
        f"{running.otlp}/v1/traces", content=body, headers=PROTOBUF | named
    )


async def drops(running: Running) -> dict[str, int]:
    return {one["reason"]: one["count"] for one in (await running.get("intake"))["dropped"]}


class TestGrpc:
    async def test_real_exporter(self, running: Running) -> None:
        """
        Spans exported by the OpenTelemetry SDK over gRPC are found as a trace.
        """
        exporter = OTLPSpanExporter(endpoint=running.settings.console_otlp_grpc, insecure=True)
        provider = TracerProvider(
            resource=Resource.create({"service.name": "auth", "service.instance.id": "auth-2"}),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(SimpleSpanProcessor(exporter))

        def work() -> str:
            with provider.get_tracer("test").start_as_current_span("outer") as span:
                pass
            provider.shutdown()
            return f"{span.get_span_context().trace_id:032x}"

        trace_id = await asyncio.to_thread(work)
        running.context.writer.flush()

        trace = await running.get(f"traces/{trace_id}")
        assert [("outer", "auth", "auth-2")] == [
            (s["name"], s["service"], s["instance"]) for s in trace["spans"]
        ]

    async def test_too_large(self, running: Running) -> None:
        """
        A request above the size limit is RESOURCE_EXHAUSTED and counted, as over HTTP.
        """
        async with grpc.aio.insecure_channel(running.settings.console_otlp_grpc) as channel:
            export: Any = channel.unary_unary(EXPORT.format("trace", "Trace"))
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await export(b"x" * (MAX_BYTES + 1))

        assert grpc.StatusCode.RESOURCE_EXHAUSTED == ei.value.code()
        assert {"too_large": 1} == await drops(running)

    @pytest.mark.parametrize("signal", [("trace", "Trace"), ("logs", "Logs")], ids=lambda s: s[0])
    async def test_malformed(self, running: Running, signal: tuple[str, str]) -> None:
        """
        Invalid bytes are INVALID_ARGUMENT and counted, without side effects.
        """
        async with grpc.aio.insecure_channel(running.settings.console_otlp_grpc) as channel:
            call: Any = channel.unary_unary(EXPORT.format(*signal))
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await call(b"\x0a\xff\xff\xff\xff\x07nonsense")

        assert grpc.StatusCode.INVALID_ARGUMENT == ei.value.code()
        assert 1 == (await drops(running))["malformed"]

    async def test_throttled(self, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A sender that is too fast gets UNAVAILABLE with RetryInfo, which exporters retry.
        """
        monkeypatch.setattr(running.context.writer, "offer", lambda *_: False)
        async with grpc.aio.insecure_channel(running.settings.console_otlp_grpc) as channel:
            export: Any = channel.unary_unary(EXPORT.format("trace", "Trace"))
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await export(call_bytes())

        assert grpc.StatusCode.UNAVAILABLE == ei.value.code()
        assert "RetryInfo" in str(ei.value.trailing_metadata())
        assert 4 == (await drops(running))["queue_full"]


def call_bytes() -> bytes:
    batch = Batch()
    batch.call()
    return batch.request.SerializeToString()


class TestHttp:
    @pytest.mark.parametrize(
        ("pack", "name"),
        [(bytes, "identity"), (gzip.compress, "gzip"), (zlib.compress, "deflate")],
        ids=["plain", "gzip", "deflate"],
    )
    async def test_protobuf(self, running: Running, pack: Any, name: str) -> None:
        """
        Protobuf over HTTP is accepted, compressed or not.
        """
        answer = await send(running, pack(call_bytes()), content_encoding=name)
        running.context.writer.flush()

        assert 200 == answer.status_code
        assert 1 == len((await running.get("traces"))["items"])

    async def test_json(self, running: Running) -> None:
        """
        JSON is accepted as specified: hexadecimal ids, unknown fields ignored.
        """
        trace_id = os.urandom(16).hex()
        span = {
            "traceId": trace_id,
            "spanId": os.urandom(8).hex(),
            "name": "from a browser",
            "kind": 2,
            "startTimeUnixNano": str(now()),
            "endTimeUnixNano": str(now()),
            "attributes": [{"key": "number", "value": {"intValue": "3"}}],
            "somethingNew": True,
        }
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "page"}}]}
        body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}

        answer = await running.client.post(f"{running.otlp}/v1/traces", json=body)
        running.context.writer.flush()

        assert 200 == answer.status_code
        (kept,) = (await running.get(f"traces/{trace_id}"))["spans"]
        assert ("page", {"number": 3}) == (kept["service"], kept["attributes"])

    @pytest.mark.parametrize(
        ("body", "kind", "status"),
        [
            (b"\x0a\xff\xff\xff\xff\x07nonsense", "application/x-protobuf", 400),
            (b"{", "application/json", 400),
            (b"[]", "application/json", 400),
            (b'{"resourceSpans": 3}', "application/json", 400),
            (
                b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":5}]}]}]}',
                "application/json",
                400,
            ),
            (b"[" * 100_000, "application/json", 400),
            (b"{}", "text/plain", 415),
            (b"{}", "", 415),
        ],
        ids=["bytes", "cut", "array", "shape", "item", "deep", "text", "no type"],
    )
    async def test_refused(self, running: Running, body: bytes, kind: str, status: int) -> None:
        """
        An invalid request is rejected with a status and a message.
        """
        answer = await running.client.post(
            f"{running.otlp}/v1/traces", content=body, headers={"content-type": kind}
        )

        assert status == answer.status_code
        if status == 400:
            assert 1 == (await drops(running))["malformed"]
        if kind == "application/json":
            assert "OTLP" in json.loads(answer.content)["message"]

    @pytest.mark.parametrize(
        "body",
        [
            b"x" * (MAX_BYTES + 1),
            gzip.compress(bytes(10 * MAX_BYTES)),
        ],
        ids=["plain", "packed"],
    )
    async def test_too_large(self, running: Running, body: bytes) -> None:
        """
        A request above the limit is rejected, however small it is when compressed.
        """
        packing = "gzip" if body.startswith(b"\x1f\x8b") else "identity"

        assert 413 == (await send(running, body, content_encoding=packing)).status_code
        assert 1 == (await drops(running))["too_large"]

    async def test_not_packed(self, running: Running) -> None:
        """
        A body that does not match its content coding is rejected.
        """
        assert 400 == (await send(running, b"plain", content_encoding="gzip")).status_code
        assert {"malformed": 1} == await drops(running)
        assert 415 == (await send(running, b"plain", content_encoding="br")).status_code

    async def test_stops_midway(self, running: Running) -> None:
        """
        A client that disconnects in the middle of its request has no effect except a dropped-items
        entry.
        """
        host, _, port = running.settings.console_otlp_http.partition(":")
        for _ in range(3):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(
                b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
                b"Content-Type: application/x-protobuf\r\n\r\nonly a part"
            )
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        assert 200 == (await send(running, call_bytes())).status_code
        async with asyncio.timeout(10):
            while (await drops(running)).get("cut_short") != 3:
                await asyncio.sleep(0.02)


async def test_restart_keeps(start: Start) -> None:
    """
    Stored telemetry survives a restart of the console.
    """
    async with start() as first:
        await first.take("logs", logs("auth", "before the restart"))
    async with start() as second:
        records = (await second.get("logs"))["items"]
        runs = (await second.get("runs"))["items"]

    assert ["before the restart"] == [record["message"] for record in records]
    assert 2 == len(runs)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/traces", 405),
        ("PUT", "/v1/logs", 405),
        ("POST", "/v1/traces/", 404),
        ("POST", "/v1/trace", 404),
        ("POST", "/", 404),
    ],
)
async def test_elsewhere(running: Running, method: str, path: str, status: int) -> None:
    """
    A wrong path or method is an OTLP status that names the paths, and no redirect.

    Source: OTLP specification, OTLP/HTTP Response (errors are a `Status` message).
    """
    answer = await running.client.request(method, f"{running.otlp}{path}")

    assert status == answer.status_code
    assert "/v1/traces, /v1/logs, /v1/metrics" in answer.json()["message"]
    assert ("POST" if status == 405 else None) == answer.headers.get("allow")
