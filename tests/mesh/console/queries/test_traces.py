"""Trace search: by every condition, page by page."""

import contextlib
import os
from typing import Any

import pytest

from mesh.console.queries import traces
from mesh.console.queries.traces import Search
from mesh.console.store import schema
from mesh.console.store.reader import BadRequestError
from tests.mesh.console.conftest import Kept
from tests.mesh.console.telemetry import CLIENT, CREATE, LIST, Batch, now

SECOND = 1_000_000_000


def found(kept: Kept, **wanted: Any) -> list[str]:
    """Return the ids of the traces on the first page of a search."""
    return [item["traceId"] for item in page(kept, **wanted)[0]]


def page(kept: Kept, **wanted: Any) -> tuple[list[dict[str, Any]], str]:
    with contextlib.closing(schema.open_reader(kept.path)) as db:
        return traces.search(db, Search(**wanted))


def every_page(kept: Kept, **wanted: Any) -> list[str]:
    ids, token = list[str](), ""
    while True:
        items, token = page(kept, token=token, **wanted)
        ids += [item["traceId"] for item in items]
        if not token:
            return ids


@pytest.fixture
def three(kept: Kept) -> dict[str, str]:
    """Three traces: a fast list, a slow creation, a failed list; and a health check."""
    batch = Batch()
    begin = now() - 60 * SECOND
    ids = {}
    kinds: dict[str, dict[str, Any]] = {
        "quick": {"method": LIST, "ms": 5, "amarre__number": 7, "text": 'a "quoted" word'},
        "slow": {"method": CREATE, "ms": 900, "amarre__number": 70},
        "failed": {"method": LIST, "ms": 50, "code": "UNAVAILABLE"},
    }
    for number, (name, facts) in enumerate(kinds.items()):
        trace = os.urandom(16)
        at = begin + number * SECOND
        root = batch.span("gateway", name, trace=trace, start=at, ms=facts["ms"])
        batch.rpc("survey", trace=trace, parent=root.span_id, start=at, **facts)
        ids[name] = trace.hex()
    probe = batch.span("gateway", "GET /healthz", http__route="/healthz", start=begin)
    ids["probe"] = probe.trace_id.hex()
    kept.take("traces", batch.request)
    return ids


class TestSearch:
    @pytest.mark.parametrize(
        ("wanted", "names"),
        [
            ({}, ["failed", "slow", "quick"]),
            ({"service": "survey"}, ["failed", "slow", "quick"]),
            ({"service": "nobody"}, []),
            ({"rpc": "survey.ListRequests"}, ["failed", "quick"]),
            ({"rpc": "survey.CreateRequest", "service": "survey"}, ["slow"]),
            ({"rpc": "survey.CreateRequest", "service": "gateway"}, []),
            ({"status": "error"}, ["failed"]),
            ({"status": "ok"}, ["slow", "quick"]),
            ({"status": "ok", "rpc": "survey.ListRequests"}, ["quick"]),
            ({"status": "error", "rpc": "survey.CreateRequest"}, []),
            ({"min_duration": 800_000}, ["slow"]),
            ({"min_duration": 20_000, "service": "survey"}, ["failed", "slow"]),
            ({"max_duration": 6_000}, ["quick"]),
            ({"max_duration": 0}, []),
            ({"attribute": "amarre.number=7"}, ["quick"]),
            ({"attribute": "amarre.number=7.0"}, ["quick"]),
            ({"attribute": "amarre.number=0"}, []),
            ({"attribute": "amarre.number=7,"}, []),
            ({"attribute": 'text=a "quoted" word'}, ["quick"]),
            ({"attribute": "rpc.response.status_code=UNAVAILABLE"}, ["failed"]),
            ({"text": "CREATERequest"}, ["slow"]),
            ({"probes": True, "text": "healthz"}, ["probe"]),
            ({"limit": 2}, ["failed", "slow"]),
        ],
        ids=str,
    )
    def test_conditions(
        self, kept: Kept, three: dict[str, str], wanted: dict[str, Any], names: list[str]
    ) -> None:
        """
        A search returns exactly the traces that satisfy its conditions, newest first.
        """
        assert [three[name] for name in names] == found(kept, **wanted)

    def test_times(self, kept: Kept, three: dict[str, str]) -> None:
        """
        A search can be limited to a time range.
        """
        middle = (now() - 59 * SECOND) // 1000

        assert [three["failed"]] == found(kept, since=middle + 500_000)
        assert three["quick"] in found(kept, until=middle - 500_000)

    @pytest.mark.parametrize(
        "wanted", [{}, {"service": "survey"}, {"attribute": "n=1"}, {"text": "S"}], ids=str
    )
    def test_pages(self, kept: Kept, wanted: dict[str, Any]) -> None:
        """
        All pages together contain each trace once, however many spans match or start together.
        """
        batch, ids, at = Batch(), list[str](), now() - 10 * SECOND
        for number in range(23):
            trace = os.urandom(16)
            ids.append(trace.hex())
            for part in range(3):
                begin = at + (number // 4) * SECOND // 10 + part * SECOND
                batch.rpc("survey", trace=trace, start=begin, n=1)
        kept.take("traces", batch.request)

        shown = every_page(kept, limit=5, **wanted)

        assert sorted(ids) == sorted(shown)

    def test_stops_for_time(self, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A search that scans too much stops after a while and can be continued.
        """
        monkeypatch.setattr(traces, "SCAN_SECONDS", 0.0)
        monkeypatch.setattr(traces, "SCANNED_AT_ONCE", 10)
        batch = Batch()
        for number in range(35):
            batch.span("survey", "x", start=now() - number * SECOND, n=number)
        kept.take("traces", batch.request)

        items, token = page(kept, attribute="n=34")

        assert [] == items
        assert token
        assert 1 == len(every_page(kept, attribute="n=34"))

    @pytest.mark.parametrize("token", ["x", "!!!!", "MQ", "MSwyLDM"])
    def test_foreign_token(self, kept: Kept, token: str) -> None:
        """
        An invalid page token is rejected.
        """
        with pytest.raises(BadRequestError):
            page(kept, token=token)


class TestOne:
    def test_whole(self, kept: Kept) -> None:
        """
        A trace has its spans, with proxies marked, and its critical path.
        """
        batch = Batch()
        trace = batch.call(proxies=True)
        kept.take("traces", batch.request)

        with contextlib.closing(schema.open_reader(kept.path)) as db:
            whole = traces.one(db, trace)

        assert whole is not None
        spans = {span["name"]: span for span in whole["spans"]}
        assert 6 == len(whole["spans"]) == whole["spanCount"]
        assert [True] * 2 == [s["proxy"] for s in whole["spans"] if s["service"].endswith("envoy")]
        assert "survey.ListRequests" == spans[LIST]["rpc"]
        assert "CLIENT" == spans["POST redcap"]["kind"]
        assert 20.0 == spans["POST redcap"]["durationMs"]
        assert spans["POST redcap"]["criticalMs"] > 19
        assert "" == spans["GET /api/v1/surveys/requests"]["parentSpanId"]

    def test_unknown(self, kept: Kept) -> None:
        """
        An unknown trace is None.
        """
        with contextlib.closing(schema.open_reader(kept.path)) as db:
            assert traces.one(db, b"x" * 16) is None

    def test_plan(self, kept: Kept) -> None:
        """
        Searches by service or rpc only read an index, whatever the number of spans.
        """
        for column in ("service", "rpc"):
            plan = kept.rows(
                f"EXPLAIN QUERY PLAN SELECT trace, start, id FROM spans WHERE {traces._BEFORE}"
                f" AND start >= ? AND {column} = ? AND probe = 0 ORDER BY start DESC, id DESC",
                *(1, 1, 1, 1, 1),
            )
            assert "COVERING INDEX" in str(plan)
            assert "TEMP B-TREE FOR ORDER BY" not in str(plan)


def test_named_in_any_order(kept: Kept) -> None:
    """
    The first server names a trace, in whatever order and parts its spans arrive.
    """
    parts, trace, begin = [Batch(), Batch(), Batch()], os.urandom(16), now()
    proxy = parts[1].span("gateway-envoy", "ingress", trace=trace, start=begin, component="proxy")
    parent = proxy.span_id
    parts[2].span("gateway", "GET /x", trace=trace, start=begin + 2_000, parent=parent)
    parts[0].rpc("survey", trace=trace, start=begin + 9_000, parent=parent)
    for part in parts:
        kept.take("traces", part.request)

    assert "GET /x" == page(kept)[0][0]["name"]


def test_client_spans_are_no_servers(kept: Kept) -> None:
    """
    A trace is named by the server, not by its proxy or client.
    """
    batch, trace = Batch(), os.urandom(16)
    proxy = batch.span("gateway-envoy", "ingress", trace=trace, component="proxy")
    batch.span("gateway", "GET /x", trace=trace, parent=proxy.span_id, start=now() + 1000)
    batch.span("gateway", LIST, trace=trace, parent=proxy.span_id, kind=CLIENT)
    kept.take("traces", batch.request)

    assert "GET /x" == page(kept)[0][0]["name"]
