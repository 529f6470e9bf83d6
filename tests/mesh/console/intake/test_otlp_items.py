"""Partial success: one invalid item does not affect the others."""

import math
import os
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from mesh.console.intake.clock_offset import ClockOffsets
from mesh.console.store.rows import Point
from tests.mesh.console.conftest import Kept, Running, Start
from tests.mesh.console.telemetry import Batch, logs, now

PROTOBUF = {"content-type": "application/x-protobuf"}


async def send(running: Running, signal: str, request: Any, **headers: str) -> Any:
    answer = await running.client.post(
        f"{running.otlp}/v1/{signal}",
        content=request.SerializeToString(),
        headers=PROTOBUF | headers,
    )
    running.context.writer.flush()
    assert 200 == answer.status_code, answer.content
    return answer.content


def gauge(*values: float | None, flags: int = 0) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    part = request.resource_metrics.add()
    part.resource.attributes.add(key="service.name").value.string_value = "auth"
    metric = part.scope_metrics.add().metrics.add(name="load")
    for number, value in enumerate(values):
        point = metric.gauge.data_points.add(time_unix_nano=now() + number * 1000, flags=flags)
        if value is not None:
            point.as_double = value
    return request


class TestPartialSuccess:
    async def test_counts(self, running: Running) -> None:
        """
        The response has the number of rejected items and the reason; the others are stored.

        Source: OTLP specification 1.9, Partial Success.
        """
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

        batch = Batch()
        batch.span("survey", "good")
        batch.span("survey", "zero").trace_id = bytes(16)
        batch.span("survey", "zero").span_id = bytes(8)
        batch.span("survey", "old", start=1)
        found = trace_service_pb2.ExportTraceServiceResponse()
        found.ParseFromString(await send(running, "traces", batch.request))

        assert 3 == found.partial_success.rejected_spans
        assert "2 spans without a valid trace id" in found.partial_success.error_message
        assert "1 items older than the retention" in found.partial_success.error_message
        assert ["good"] == [t["name"] for t in (await running.get("traces"))["items"]]
        assert {"traces": 1} == (await running.get("intake"))["received"]

    async def test_full_success(self, running: Running) -> None:
        """
        A request without rejected items gets an empty response.
        """
        batch = Batch()
        batch.call()
        assert b"" == await send(running, "traces", batch.request)

    async def test_logs_as_traces(self, running: Running) -> None:
        """
        Log records posted to /v1/traces are reported as rejected.
        """
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

        found = trace_service_pb2.ExportTraceServiceResponse()
        found.ParseFromString(await send(running, "traces", logs("auth", "\x0a\x02hi")))
        assert 1 == found.partial_success.rejected_spans


class TestPoints:
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
    async def test_not_finite(self, running: Running, bad: float | None) -> None:
        """
        Only a point without a finite value is dropped and counted; others are readable.
        """
        await send(running, "metrics", gauge(1.5, bad, 2.5))
        await send(running, "logs", logs("survey", "kept"))

        (series,) = (await running.get("series", name="load"))["items"]
        assert [1.5, 2.5] == [value for _, value in series["points"]]
        assert ["kept"] == [one["message"] for one in (await running.get("logs"))["items"]]
        assert {("metrics", 1)} == {
            (one["signal"], one["count"]) for one in (await running.get("intake"))["dropped"]
        }

    async def test_no_recorded_value(self, running: Running) -> None:
        """
        A point that marks the end of its series is a gap, not the value 0.
        """
        assert b"" == await send(running, "metrics", gauge(0.0, flags=1))
        assert [] == (await running.get("series", name="load"))["items"]

    async def test_delta(self, running: Running) -> None:
        """
        Delta sums are distinguished from cumulative ones.
        """
        request = gauge()
        for temporality, name in ((1, "changes"), (2, "totals")):
            metric: Any = request.resource_metrics[0].scope_metrics[0].metrics.add(name=name)
            metric.sum.aggregation_temporality = temporality
            metric.sum.is_monotonic = True
            metric.sum.data_points.add(time_unix_nano=now(), as_int=3)
        await send(running, "metrics", request)

        kinds = [
            (await running.get("series", name=name))["items"][0]["kind"]
            for name in ("changes", "totals")
        ]
        assert ["counter, delta", "counter"] == kinds

    @pytest.mark.parametrize(
        ("kind", "facts", "value", "reason"),
        [
            ("sum", {"aggregation_temporality": 0}, 1, "no_temporality"),
            ("sum", {"aggregation_temporality": 77}, 1, "no_temporality"),
            ("histogram", {"aggregation_temporality": 0}, None, "no_temporality"),
            ("exponential_histogram", {"aggregation_temporality": 0}, None, "no_temporality"),
            ("sum", {"aggregation_temporality": 2, "is_monotonic": True}, -5, "negative"),
            ("sum", {"aggregation_temporality": 1, "is_monotonic": True}, -5, "negative"),
            ("sum", {"aggregation_temporality": 2}, -5, ""),
            ("sum", {"aggregation_temporality": 2, "is_monotonic": True}, 0, ""),
            ("gauge", {"name": ""}, 1, "no_name"),
            ("gauge", {}, -1, ""),
        ],
    )
    def test_forbidden(
        self, kept: Kept, kind: str, facts: dict[str, Any], value: int | None, reason: str
    ) -> None:
        """
        Points that the metrics data model forbids are rejected with the reason.

        Source: OpenTelemetry metrics data model, Sums and Temporality; metrics.proto.
        """
        request = gauge()
        metric: Any = request.resource_metrics[0].scope_metrics[0].metrics[0]
        metric.name = facts.get("name", "x")
        data = getattr(metric, kind)
        for field in facts.keys() - {"name"}:
            setattr(data, field, facts[field])
        point = data.data_points.add(time_unix_nano=now())
        if value is not None:
            point.as_int = value
        kept.take("metrics", request)

        assert ({(reason, "auth"): 1} if reason else {}) == kept.dropped()
        assert [(int(not reason),)] == kept.rows("SELECT count(*) FROM points")


class TestSpans:
    def test_zero_parent(self, kept: Kept) -> None:
        """
        An all-zero parent id is no parent: the span is a root.
        """
        batch = Batch()
        batch.span("survey", "x", parent=bytes(8))
        kept.take("traces", batch.request)

        assert [(b"",)] == kept.rows("SELECT parent_id FROM spans")

    async def test_unknown_kind(self, running: Running) -> None:
        """
        An unknown span kind is treated as unspecified.
        """
        batch = Batch()
        trace = os.urandom(16)
        odd: Any = batch.span("survey", "x", trace=trace)
        odd.kind = -7
        await send(running, "traces", batch.request)

        (span,) = (await running.get(f"traces/{trace.hex()}"))["spans"]
        assert "UNSPECIFIED" == span["kind"]

    async def test_large_integer(self, running: Running) -> None:
        """
        An integer that JavaScript cannot represent exactly is shown with all digits.
        """
        batch = Batch()
        trace = os.urandom(16)
        batch.span("survey", "x", trace=trace, big=2**63 - 1, small=2**53)
        await send(running, "traces", batch.request)

        (span,) = (await running.get(f"traces/{trace.hex()}"))["spans"]
        assert {"big": "9223372036854775807", "small": 2**53} == span["attributes"]

    async def test_links(self, running: Running) -> None:
        """
        Links are stored and shown in both directions, with whether their target is stored.
        """
        batch = Batch()
        cause, effect, lost = os.urandom(16), os.urandom(16), os.urandom(16)
        first = batch.span("auth", "enqueue", trace=cause)
        second = batch.span("auth", "send mail", trace=effect)
        for trace, span_id in ((cause, first.span_id), (lost, b"12345678"), (bytes(16), bytes(8))):
            link = second.links.add(trace_id=trace, span_id=span_id)
            link.attributes.add(key="api_key").value.string_value = "planted"
        await send(running, "traces", batch.request)

        (span,) = (await running.get(f"traces/{effect.hex()}"))["spans"]
        assert {(cause.hex(), True), (lost.hex(), False)} == {
            (link["traceId"], link["kept"]) for link in span["links"]
        }
        assert "planted" not in str(span)
        (back,) = (await running.get(f"traces/{cause.hex()}"))["linkedFrom"]
        assert (effect.hex(), "send mail") == (back["traceId"], back["name"])
        assert first.span_id.hex() == back["toSpanId"]


class TestLogs:
    @pytest.mark.parametrize(
        ("text", "level"),
        [
            ("ERROR", "error"),
            ("Warning", "warning"),
            ("warn2", "warning"),
            ("Information", "info"),
            ("DEBUG", "debug"),
            ("CRITICAL", "fatal"),
            ("something else", "info"),
            ("", "info"),
        ],
    )
    async def test_severity_text(self, running: Running, text: str, level: str) -> None:
        """
        Without a severity number, the severity text is used.
        """
        request = logs("auth", "x", level=0)
        request.resource_logs[0].scope_logs[0].log_records[0].severity_text = text
        await send(running, "logs", request)

        assert [level] == [one["level"] for one in (await running.get("logs"))["items"]]

    async def test_no_time(self, running: Running) -> None:
        """
        A record without a time is stored with the time of receipt.
        """
        request = logs("auth", "timeless")
        request.resource_logs[0].scope_logs[0].log_records[0].time_unix_nano = 0
        assert b"" == await send(running, "logs", request)

        assert ["timeless"] == [one["message"] for one in (await running.get("logs"))["items"]]

    async def test_event(self, running: Running) -> None:
        """
        An event without a body is shown by its name.
        """
        request = ExportLogsServiceRequest()
        records = request.resource_logs.add().scope_logs.add().log_records
        records.add(time_unix_nano=now(), event_name="session.start")
        old = records.add(time_unix_nano=now())
        old.attributes.add(key="event.name").value.string_value = "device.crash"
        await send(running, "logs", request)

        shown = {one["message"] for one in (await running.get("logs"))["items"]}
        assert {"session.start", "device.crash"} == shown


class TestWriter:
    def test_one_bad_row(self, kept: Kept) -> None:
        """
        Only the row that SQLite rejects is lost, not those of other senders.
        """
        good, bad = (
            Point("p", name, "{}", kept.intake._now(), value, 0.0, "")
            for name, value in (("good", 1.0), ("bad", math.nan))
        )
        assert kept.writer.offer_points([good, bad])
        kept.take("logs", logs("auth", "kept"))

        assert [("good",)] == kept.rows(
            "SELECT name FROM series JOIN points ON points.series = series.id"
        )
        assert [("kept",)] == kept.rows("SELECT body FROM logs")
        assert {("not_written", ""): 1} == kept.dropped()


class TestToken:
    async def test_required(self, start: Start, tmp_path: Any) -> None:
        """
        With an OTLP token set, telemetry without it is rejected and counted, over HTTP and gRPC.
        """
        import grpc

        file = tmp_path / "otlp-token"
        file.touch(0o600)
        file.write_text("a-token-for-senders")
        batch = Batch()
        batch.call()
        body = batch.request.SerializeToString()
        async with start(console_otlp_token_file=file) as running:
            del running.client.headers["authorization"]
            refused = await running.client.post(
                f"{running.otlp}/v1/traces", content=body, headers=PROTOBUF
            )
            taken = await running.client.post(
                f"{running.otlp}/v1/traces",
                content=body,
                headers=PROTOBUF | {"authorization": "Bearer a-token-for-senders"},
            )
            async with grpc.aio.insecure_channel(running.settings.console_otlp_grpc) as channel:
                export: Any = channel.unary_unary(
                    "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
                )
                with pytest.raises(grpc.aio.AioRpcError) as ei:
                    await export(body)
                await export(body, metadata=(("authorization", "Bearer a-token-for-senders"),))
            counted = running.context.intake.dropped()

        assert (401, 200) == (refused.status_code, taken.status_code)
        assert grpc.StatusCode.UNAUTHENTICATED == ei.value.code()
        assert [2] == [one.count for one in counted if one.reason == "unauthenticated"]


class TestClock:
    @pytest.mark.parametrize(
        ("seconds", "shown"), [(0, None), (-20, None), (1, None), (120, 120.0), (-300, -300.0)]
    )
    def test_offset(self, seconds: int, shown: float | None) -> None:
        """
        A clock that is ahead, or far behind, is detected; delayed telemetry is not an offset.
        """
        time = 1_000_000_000_000_000
        clocks = ClockOffsets(lambda: time)
        for delay in (25, 5, 15):
            clocks.observe("survey", time + (seconds - (delay if seconds <= 0 else 0)) * 1_000_000)

        found = clocks.seconds("survey")
        assert shown == (None if found is None else round(found / 10) * 10)

    def test_recovers(self) -> None:
        """
        A clock that has been corrected is no longer reported.
        """
        times = [1_000_000_000_000_000]
        clocks = ClockOffsets(lambda: times[0])
        clocks.observe("survey", times[0] + 120_000_000)
        assert 120.0 == clocks.seconds("survey")
        for _ in range(3):
            times[0] += 30_000_000
            clocks.observe("survey", times[0] - 1_000_000)

        assert {} == clocks.wrong()
