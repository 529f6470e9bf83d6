"""The service graph: observed and declared calls."""

import contextlib
import os
from datetime import timedelta
from typing import Any

import pytest

from mesh.console.clock import steady
from mesh.console.queries import service_graph
from mesh.console.store import schema
from mesh.console.store.call_edges import PATIENCE
from mesh.console.store.call_edges import Edges as Watcher
from mesh.console.store.rows import Span
from mesh.contract import policy
from tests.mesh.console.conftest import Kept
from tests.mesh.console.telemetry import CLIENT, LIST, SERVER, Batch

Edges = dict[tuple[str, str, str], dict[str, Any]]


def edges(kept: Kept) -> Edges:
    with contextlib.closing(schema.open_reader(kept.path)) as db:
        found = service_graph.edges(db, policy.load(), now=steady()(), window=timedelta(minutes=5))
    return {(e["from"], e["to"], e["method"]): e for e in found}


LISTED = ("gateway", "survey", "survey.ListRequests")


class TestSeen:
    def test_once_each(self, kept: Kept) -> None:
        """
        A call counts once on its edge, with or without proxies.
        """
        batch = Batch()
        batch.call()
        batch.call(proxies=True)
        kept.take("traces", batch.request)

        found = edges(kept)
        assert 1 == found[LISTED]["calls"]
        assert 1 == found["gateway", "survey", ""]["calls"]
        assert 2 == found["browser", "gateway", ""]["calls"]
        assert 2 == found["survey", "redcap", ""]["calls"]
        assert found[LISTED]["declared"]
        assert found[LISTED]["observed"]

    def test_call_that_leaves(self, kept: Kept) -> None:
        """
        A gateway call without a span of its own is not attributed to a browser.
        """
        batch, trace = Batch(), os.urandom(16)
        facts: dict[str, Any] = {"rpc__method": LIST, "component": "proxy", "trace": trace}
        leaving = batch.span("gateway-envoy", LIST, **facts)
        routed = batch.span("gateway-envoy", "egress", parent=leaving.span_id, kind=CLIENT, **facts)
        batch.rpc("survey", trace=trace, parent=routed.span_id)
        kept.take("traces", batch.request)

        found = edges(kept)
        assert 1 == found[LISTED]["calls"]
        assert ("browser", "gateway", LISTED[2]) not in found

    def test_parent_comes_later(self, kept: Kept) -> None:
        """
        An edge is found even if the caller's span arrives in a later batch.
        """
        early, late, trace = Batch(), Batch(), os.urandom(16)
        caller = late.span("gateway", LIST, trace=trace, kind=CLIENT)
        early.rpc("survey", trace=trace, parent=caller.span_id)

        kept.take("traces", early.request)
        assert not edges(kept)[LISTED]["observed"]
        kept.take("traces", late.request)

        assert 1 == edges(kept)[LISTED]["calls"]

    def test_parent_never_comes(self) -> None:
        """
        A request whose parent span was never sent is eventually attributed to a browser.
        """
        seen = Watcher()
        front = Span(
            trace_id=b"t" * 16,
            span_id=b"s" * 8,
            parent_id=b"b" * 8,
            service="gateway",
            instance="",
            name="GET /",
            rpc="",
            kind=SERVER,
            proxy=0,
            start=60_000_000,
            duration=5,
            error=0,
            code="200",
            message="",
            probe=0,
            peer="",
            attributes="{}",
            events="",
        )

        assert [] == seen.see([front], now=0)
        (edge,) = seen.see([], now=PATIENCE)
        assert ("browser", "gateway", 1) == (edge.source, edge.target, edge.minute)

    @pytest.mark.parametrize("system", ["outbox", "console"])
    def test_other_systems(self, kept: Kept, system: str) -> None:
        """
        A client span with a peer is an edge to it: Auth sends mail and links operators to the
        console.
        """
        batch = Batch()
        batch.span("auth", "send mail", kind=CLIENT, peer__service=system)
        kept.take("traces", batch.request)

        found = edges(kept)["auth", system, ""]
        assert found["declared"]
        assert found["observed"]

    @pytest.mark.parametrize(
        ("process", "named"),
        [
            ("survey", {"amarre__caller": "health"}),
            ("survey-envoy", {"amarre__caller_id": "spiffe://amarre.local/ns/amarre/sa/health"}),
        ],
        ids=["service", "proxy"],
    )
    def test_undeclared(self, kept: Kept, process: str, named: dict[str, str]) -> None:
        """
        An undeclared caller is highlighted, with the policy that denied it, by service or proxy.
        """
        batch = Batch()
        batch.rpc(process, code="PERMISSION_DENIED", **named)
        kept.take("traces", batch.request)

        edge = edges(kept)["health", "survey", "survey.ListRequests"]
        assert not edge["declared"]
        assert 1 == edge["refused"]
        assert edge["policy"].startswith("amarre/survey/v1/survey_service.proto:")

    def test_never_seen(self, kept: Kept) -> None:
        """
        A declared edge that was never observed is shown as such.
        """
        edge = edges(kept)[LISTED]

        assert (True, False, False) == (edge["declared"], edge["observed"], edge["everObserved"])

    def test_every_declared(self, kept: Kept) -> None:
        """
        Every caller of every method is an edge.
        """
        declared = {
            (caller, method.service, method.short_name)
            for method in policy.load()
            for caller in method.callers
            if caller != "*"
        }

        assert declared <= edges(kept).keys()

    def test_errors(self, kept: Kept) -> None:
        """
        A failed call marks its edge as failing.
        """
        batch = Batch()
        for code in ("OK", "UNAVAILABLE"):
            batch.call(code=code)
        kept.take("traces", batch.request)

        edge = edges(kept)[LISTED]
        assert (2, 1, 0.5) == (edge["calls"], edge["errors"], edge["errorRatio"])
