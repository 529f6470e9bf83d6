"""Intake: what the console stores, and how it reports the rest."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from mesh.console.intake.clock_offset import ClockOffsets
from mesh.console.intake.otlp_attributes import MAX_TEXT
from mesh.console.intake.otlp_sender import MAX_SERVICES
from mesh.console.settings import MEBIBYTE
from tests.mesh.console.conftest import Kept
from tests.mesh.console.telemetry import Batch, logs, now

COUNTED = {
    "traces": "SELECT spans, errors FROM traces",
    "services": "SELECT name, spans, span_bytes FROM services ORDER BY name",
    "edges": "SELECT source, target, rpc, calls, errors FROM edges ORDER BY 1, 2, 3",
}
DAY = 86_400 * 1_000_000_000


class TestSpans:
    def test_kept(self, kept: Kept) -> None:
        """
        A span is stored with service, rpc, code and times; its trace with its root.
        """
        batch = Batch()
        trace = batch.call(proxies=True)
        kept.take("traces", batch.request)

        assert [(6, 0, 0)] == kept.rows("SELECT spans, errors, probe FROM traces")
        assert [("GET /api/v1/surveys/requests",)] == kept.rows(
            "SELECT n.text FROM traces t JOIN names n ON n.id = t.name WHERE trace_id = ?", trace
        )
        assert [(2,)] == kept.rows("SELECT sum(proxy) FROM spans")
        assert {} == kept.dropped()

    def test_parts(self, kept: Kept) -> None:
        """
        Spans of one trace that arrive in parts, children first, form one trace named by its root.
        """
        late, early = Batch(), Batch()
        trace = b"t" * 16
        root = late.span("gateway", "root", trace=trace, ms=100)
        early.span("survey", "child", trace=trace, parent=root.span_id, ms=5)

        kept.take("traces", early.request)
        kept.take("traces", late.request)

        assert [(2, "root")] == kept.rows(
            "SELECT t.spans, n.text FROM traces t JOIN names n ON n.id = t.name"
        )

    def test_twice(self, kept: Kept) -> None:
        """
        A batch that an exporter resends is stored and counted once: spans, traces, edges.

        Source: OTLP specification, Duplicate Data.
        """
        batch = Batch()
        batch.call()
        kept.take("traces", batch.request)
        before = COUNTED.items()
        counts = {name: kept.rows(sql) for name, sql in before}
        kept.take("traces", batch.request)
        twice = Batch()
        twice.request.CopyFrom(batch.request)
        twice.request.resource_spans.extend(batch.request.resource_spans)
        kept.take("traces", twice.request)

        assert [(4,)] == kept.rows("SELECT count(*) FROM spans")
        assert counts == {name: kept.rows(sql) for name, sql in COUNTED.items()}
        assert {("duplicate", ""): 12} == kept.dropped()

    @pytest.mark.parametrize(
        ("code", "error"),
        [("OK", 0), ("NOT_FOUND", 0), ("INTERNAL", 1), ("13", 1), ("5", 0), ("UNAVAILABLE", 1)],
    )
    def test_failure(self, kept: Kept, code: str, error: int) -> None:
        """
        A span is failed if its code is the fault of the service, by name or number.
        """
        batch = Batch()
        batch.rpc("survey", code=code)
        kept.take("traces", batch.request)

        assert [(error,)] == kept.rows("SELECT error FROM spans")

    def test_callers_mistake(self, kept: Kept) -> None:
        """
        A caller error is not a failure, although Envoy marks its span as one.
        """
        batch = Batch()
        batch.span("gateway-envoy", "x", error=True, component="proxy", grpc__status_code="5")
        batch.span("gateway-envoy", "x", error=True, component="proxy", grpc__status_code="14")
        batch.span("survey", "x", error=True)
        kept.take("traces", batch.request)

        assert [(0,), (1,), (1,)] == kept.rows("SELECT error FROM spans ORDER BY id")


class TestBadInput:
    @pytest.mark.parametrize(
        ("start", "reason"),
        [
            (1, "too_old"),
            (now() - 8 * DAY, "too_old"),
            (now() + 2 * DAY, "in_future"),
            (2**64 - 20_000_000, "in_future"),
        ],
        ids=["1970", "before retention", "in two days", "in 2554"],
    )
    def test_wild_times(self, kept: Kept, start: int, reason: str) -> None:
        """
        Spans far in the past or the future are rejected with the reason.
        """
        batch = Batch()
        batch.span("survey", "x", start=start)
        batch.span("survey", "good")
        kept.take("traces", batch.request)

        assert [(1,)] == kept.rows("SELECT count(*) FROM spans")
        assert {(reason, "survey"): 1} == kept.dropped()

    @pytest.mark.parametrize(
        "end",
        [0, 1, now() - 10**10, now() + 2 * DAY, 2**64 - 1],
        ids=["missing", "1970", "before the start", "in two days", "in 2554"],
    )
    def test_wild_ends(self, kept: Kept, end: int) -> None:
        """
        A span without a possible end has no duration, which is counted, and the end says nothing
        about its sender's clock.
        """
        clocks = ClockOffsets(kept.intake._now)
        kept.decoder.observe = clocks.observe
        batch = Batch()
        span: Any = batch.span("survey", "x")
        span.end_time_unix_nano = (
            end if end in {0, 1, 2**64 - 1} else span.start_time_unix_nano + end
        )
        kept.take("traces", batch.request)

        assert [(0,)] == kept.rows("SELECT duration FROM spans")
        assert {("bad_time", "survey"): 1} == kept.dropped()
        assert {} == clocks.wrong()

    @pytest.mark.parametrize(
        "at",
        [0, 1, now() + 2 * DAY, 2**64 - 1],
        ids=["missing", "1970", "in two days", "in 2554"],
    )
    def test_wild_events(self, kept: Kept, at: int) -> None:
        """
        An event without a possible time has that of its span's start, which is counted.
        """
        batch = Batch()
        span: Any = batch.span("survey", "x")
        span.events.add(name="odd", time_unix_nano=at)
        span.events.add(name="good", time_unix_nano=span.start_time_unix_nano + 7_000)
        kept.take("traces", batch.request)

        ((start, events),) = kept.rows("SELECT start, events FROM spans")
        assert [start, start + 7] == [event["at"] for event in json.loads(events)]
        assert {("bad_time", "survey"): 1} == kept.dropped()

    def test_no_ids(self, kept: Kept) -> None:
        """
        A span whose ids have the wrong length is rejected.
        """
        batch = Batch()
        batch.span("survey", "x", trace=b"short")
        kept.take("traces", batch.request)

        assert {("no_ids", "survey"): 1} == kept.dropped()

    def test_huge_attribute(self, kept: Kept) -> None:
        """
        An attribute of 10 MB is truncated; the span is stored.
        """
        batch = Batch()
        batch.span("survey", "x", big="a" * 10_000_000, small="b")
        kept.take("traces", batch.request)

        ((text,),) = kept.rows("SELECT attributes FROM spans")
        assert len(text) < MAX_TEXT
        assert '"small":"b"' in text
        assert {("attributes_cut", "survey"): 1} == kept.dropped()

    def test_many_attributes(self, kept: Kept) -> None:
        """
        Ten thousand attributes are truncated to the limit.
        """
        batch = Batch()
        many: dict[str, Any] = {f"key{n}": n for n in range(10_000)}
        batch.span("survey", "x", **many)
        kept.take("traces", batch.request)

        ((size,),) = kept.rows("SELECT length(attributes) FROM spans")
        assert size < MAX_TEXT

    def test_many_services(self, kept: Kept) -> None:
        """
        Invented service names from one client are merged into one row.
        """
        batch = Batch()
        for number in range(MAX_SERVICES + 100):
            batch.span(f"service-{number}", "x")
        kept.take("traces", batch.request)

        ((services,),) = kept.rows("SELECT count(*) FROM services")
        assert services <= MAX_SERVICES + 1
        assert MAX_SERVICES + 100 == kept.rows("SELECT sum(spans) FROM services")[0][0]

    def test_deep_value(self, kept: Kept) -> None:
        """
        A deeply nested value is truncated.
        """
        batch = Batch()
        value = batch.span("survey", "x").attributes.add(key="deep").value
        for _ in range(40):
            value = value.array_value.values.add()
        value.string_value = "bottom"
        kept.take("traces", batch.request)

        assert "bottom" not in kept.rows("SELECT attributes FROM spans")[0][0]


class TestRedaction:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("authorization", "Bearer abcdefgh"),
            ("http.request.header.authorization", "planted"),
            ("http.request.header.cookie", "planted"),
            ("rpc.request.metadata.set-cookie", "planted"),
            ("x-api-key", "planted"),
            ("session_secret", "planted"),
            ("email", "planted"),
            ("auth.user_token", "planted"),
            ("request.email", "planted"),
            ("request.name", "planted"),
            ("peer.address", "planted"),
            ("user_agent", "planted"),
            ("client_address", "planted"),
            ("note", "mail to planted@example.org please"),
            ("url.full", "https://example.org/login?secret=planted"),
            ("header", "Bearer planted-token-value"),
            ("jwt", "eyJhbGciOiJFZERTQSJ9.planted.planted"),
        ],
    )
    def test_never_stored(self, kept: Kept, key: str, value: str) -> None:
        """
        Credentials and personal data are redacted in spans and logs.
        """
        batch, facts = Batch(), dict[str, Any]({key: value})
        batch.span("gateway", "x", **facts)
        kept.take("traces", batch.request)
        kept.take("logs", logs("gateway", f"saw {value}" if "@" in value else "x", **facts))

        stored = kept.rows("SELECT attributes FROM spans UNION SELECT attributes || body FROM logs")
        assert "planted" not in str(stored)
        assert "abcdefgh" not in str(stored)

    def test_plain_stays(self, kept: Kept) -> None:
        """
        Attributes without personal data are unchanged.
        """
        batch = Batch()
        facts = {"http__route": "/api/v1/me", "enduser__pseudo__id": "0123456789abcdef"}
        batch.span("gateway", "x", **dict[str, Any](facts), code__email="no person")
        kept.take("traces", batch.request)

        ((text,),) = kept.rows("SELECT attributes FROM spans")
        assert '"http.route":"/api/v1/me"' in text
        assert '"enduser.pseudo.id":"0123456789abcdef"' in text
        assert '"code.email":"no person"' in text


class TestBounds:
    def test_noisy_evicts_itself(self, make: Callable[..., Kept]) -> None:
        """
        A service above its quota loses its own oldest spans, and no others.
        """
        kept = make(service_bytes=MEBIBYTE)
        quiet = Batch()
        quiet.span("survey", "quiet")
        kept.take("traces", quiet.request)
        for _ in range(6):
            noisy = Batch()
            for _ in range(500):
                noisy.span("gateway", "noise", filler="x" * 500)
            kept.take("traces", noisy.request)
        settle(kept)

        used = dict(kept.rows("SELECT name, span_bytes FROM services"))
        counts = dict(kept.rows("SELECT name, spans FROM services"))
        assert 1 == counts["survey"]
        assert used["gateway"] <= MEBIBYTE
        assert 0 < counts["gateway"] < 3000
        assert kept.rows("SELECT count(*) FROM spans") == kept.rows("SELECT count(*) FROM traces")

    def test_newest_stay(self, make: Callable[..., Kept]) -> None:
        """
        The newest records are kept if a service exceeds its log quota.
        """
        kept = make(service_bytes=MEBIBYTE)
        for part in range(8):
            kept.take("logs", logs("auth", *[f"{part} {'x' * 600}"] * 500))
        settle(kept)

        ((oldest, newest, count),) = kept.rows("SELECT min(body), max(body), count(*) FROM logs")
        assert newest.startswith("7")
        assert not oldest.startswith("0")
        assert count < 4000

    def test_age(self, make: Callable[..., Kept]) -> None:
        """
        Rows older than the retention period are deleted, with their traces.
        """
        kept = make(retention=timedelta(minutes=2))
        batch = Batch()
        batch.span("survey", "old", start=now() - 119_500_000_000)
        batch.span("survey", "new")
        kept.take("traces", batch.request)
        assert 2 == kept.rows("SELECT count(*) FROM spans")[0][0]
        settle(kept, until="SELECT count(*) = 1 FROM spans")

        assert [("new",)] == kept.rows("SELECT n.text FROM traces t JOIN names n ON n.id = t.name")

    def test_backpressure(self, make: Callable[..., Kept]) -> None:
        """
        When the queue is full, requests are rejected rather than held in memory.
        """
        kept = make(queue_bytes=1000)
        gate = threading.Event()

        def hold(*_: object) -> None:
            gate.wait(10)

        kept.writer.do(hold)
        batch = Batch()
        batch.call()

        rows = kept.rows_of("traces", batch.request)
        took = [kept.writer.offer("traces", rows, 600) for _ in range(3)]
        gate.set()
        kept.writer.flush()

        assert [True, False, False] == took
        assert kept.writer.offer("traces", rows, 600)


class TestFullDisk:
    def test_full(self, make: Callable[..., Kept]) -> None:
        """
        With a full disk, records are lost and counted; afterwards the newest are stored again.
        """
        kept = make()

        def limit(_: object, db: sqlite3.Connection) -> None:
            db.execute("PRAGMA max_page_count = 300")

        kept.writer.do(limit)
        kept.writer.flush()
        for _ in range(12):
            kept.take("logs", logs("auth", *["x" * 2000] * 200))
        lost = kept.dropped()
        last = logs("auth", "the last one")
        kept.take("logs", last)
        kept.take("logs", last)

        assert 0 < lost[("disk_full", "")] < 12 * 200
        assert 0 < kept.rows("SELECT count(*) FROM logs WHERE body = 'the last one'")[0][0]
        assert "" == kept.writer.fault

    def test_survives(self, make: Callable[..., Kept]) -> None:
        """
        Whatever a batch contains, the writer continues.
        """
        kept = make()

        def fail(*_: object) -> None:
            raise sqlite3.DatabaseError("something odd")

        def fall(*_: object) -> None:
            raise ZeroDivisionError

        kept.writer.do(fail)
        kept.writer.do(fall)
        kept.writer.flush()
        kept.take("logs", logs("auth", "hello"))

        assert 1 == kept.rows("SELECT count(*) FROM logs")[0][0]


WITHIN_SHARE = "SELECT max(span_bytes + log_bytes) <= 1048576 FROM services"


def settle(kept: Kept, until: str = WITHIN_SHARE) -> None:
    """Run housekeeping until a query returns 1; the writer does so every few seconds."""
    ends = time.monotonic() + 15
    while kept.rows(until) != [(1,)]:
        assert time.monotonic() < ends, "the writer does not tidy"
        kept.writer._tidied = 0
        kept.writer.flush()
