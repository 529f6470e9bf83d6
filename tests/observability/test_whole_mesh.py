"""
A whole mesh that reports to our collector: every method emits its telemetry, exactly the declared
edges are observed, one request is one trace, and no personal data leaves any process.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mesh.chassis.channel import channel
from mesh.chassis.config import MeshSettings
from mesh.chassis.telemetry import names, tracing
from mesh.chassis.testing import free_port
from mesh.contract import policy
from mesh.contract.policy import Method
from mesh.render import signals
from mesh.topology import PROCESSES
from tests.integration.researcher import INVITES_FOR_RESEARCH, Researcher
from tests.live import running
from tests.mesh.chassis.telemetry import Collector, collecting

MESH = policy.load()
EMAIL = "planted.canary@example.org"
WAIT_SECONDS = 90.0


@dataclass(frozen=True)
class Told:
    """A mesh and its telemetry."""

    ready: dict[str, Any]
    base: int
    data: Path
    collector: Collector

    def spans(self, trace: str = "") -> list[tuple[str, Any]]:
        """Spans with their services."""
        return [
            (attribute(resource.resource, "service.name"), span)
            for resource in list(self.collector.resources["traces"])
            for scope in resource.scope_spans
            for span in scope.spans
            if not trace or trace == span.trace_id.hex()
        ]

    def lines(self) -> list[dict[str, Any]]:
        """The log lines of the contracts' processes."""
        services = [process.name for process in PROCESSES if process.metrics]
        texts = [(self.data / f"logs/{name}.log").read_text() for name in services]
        return [json.loads(line) for text in texts for line in text.splitlines() if line[:1] == "{"]

    def counts(self, metric: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The values of a metric over all processes, by *labels*."""
        found: dict[tuple[str, ...], float] = {}
        for process in PROCESSES:
            if process.metrics:
                url = f"http://127.0.0.1:{self.base + process.metrics}/metrics"
                text = httpx.get(url, trust_env=False).text
                for family in text_string_to_metric_families(text):
                    for sample in family.samples:
                        if sample.name == metric:
                            key = tuple(sample.labels[label] for label in labels)
                            found[key] = found.get(key, 0.0) + sample.value
        return found


def attribute(holder: Any, key: str) -> str:
    return next((a.value.string_value for a in holder.attributes if a.key == key), "")


def wait_for(holds: Callable[[], Any]) -> Any:
    """Return the result of *holds* once it is true, or its last result."""
    ends = time.monotonic() + WAIT_SECONDS
    while not (found := holds()) and time.monotonic() < ends:
        time.sleep(0.1)
    return found


@pytest.fixture
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Told]:
    with collecting(free_port()) as collector, pytest.MonkeyPatch.context() as environment:
        url = f"http://127.0.0.1:{collector.port}"
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        environment.setenv("OTEL_METRIC_EXPORT_INTERVAL", "1000")
        with running(tmp_path, *request.param) as ready:
            base = int(ready["urls"]["app"].rpartition(":")[2])
            yield Told(ready, base, tmp_path / "data", collector)


async def ask(told: Told, method: Method) -> None:
    """Call *method* as its first permitted workload, with an empty request and no user."""
    folder = told.data / "certs" / method.callers[0]
    settings = MeshSettings(
        peers={method.service: told.ready["grpc"][method.service]}, svid_dir=folder
    )
    tracing.resume(f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01")
    request: Any = b""
    streamed: Any
    async with channel(method.service, settings) as live:
        try:
            if method.streams:
                streamed = live.unary_stream(method.path)(request, timeout=3)
                await anext(aiter(streamed), None)
                streamed.cancel()
            else:
                await live.unary_unary(method.path)(request, timeout=3)
        except grpc.aio.AioRpcError:
            return  # An answer all the same: it shows in every signal.


@pytest.mark.parametrize("told", [["--direct"]], ids=["direct"], indirect=True)
def test_every_method_and_edge(told: Told) -> None:
    """
    After one warm-up, every method has emitted its span, its metric and its line; exactly the
    declared edges were observed; and a response's id leads to its line.
    """
    with Researcher(told.ready, EMAIL) as ada:
        ada.sign_in()
        ada.requests()
        answer = ada.send("GET", "/api/v1/health/status")
    request_id = answer.headers["x-request-id"]

    def edges() -> set[tuple[str, ...]]:
        return set(told.counts(names.RPC_SERVER_CALLS, "caller", "service"))

    # Survey may still be connecting to Auth to watch for revocations.
    wait_for(lambda: edges() == signals.edges(MESH))
    observed = edges()

    async def warm_up() -> None:
        for method in MESH:
            await ask(told, method)

    asyncio.run(warm_up())
    expected = signals.matrix(MESH)

    def without_span() -> list[str]:
        made = {span.name for _, span in told.spans() if span.kind == span.SPAN_KIND_SERVER}
        return [row.method for row in expected if row.span not in made]

    def without_line() -> list[str]:
        written = {line.get("rpc") for line in told.lines() if "call" == line["event"]}
        return [row.method for row in expected if row.method not in written]

    counted = told.counts(f"{names.RPC_SERVER_DURATION}_count", "service", "method")
    wait_for(lambda: not without_span() and not without_line())
    assert [] == without_span()
    assert [] == without_line()
    assert [] == [row.method for row in expected if not counted.get(tuple(row.labels.values()))]
    assert observed == signals.edges(MESH)
    assert ["/api/v1/health/status"] == [
        line["route"] for line in told.lines() if request_id == line.get("request_id")
    ]


@pytest.mark.envoy
@pytest.mark.parametrize("told", [[]], ids=["sidecars"], indirect=True)
def test_one_trace_and_nothing_personal(told: Told) -> None:
    """
    A browser request is one trace, from the edge to REDCap, each span with an existing parent; and
    no personal data of a researcher reaches the collector.
    """
    with Researcher(told.ready, EMAIL) as ada:
        ada.sign_in()
        session = ada.session
        ada.fill(ada.step(ada.create(), "form")["url"], INVITES_FOR_RESEARCH)
        ada.requests()
        data = ada.send("GET", "/api/v1/surveys/data")
    trace_id = data.headers["traceresponse"].split("-")[1]

    wanted = {
        ("gateway-envoy", "SERVER"),
        ("gateway", "SERVER"),
        ("gateway", "CLIENT"),
        ("survey-envoy", "SERVER"),
        ("survey", "SERVER"),
        ("survey", "CLIENT"),
    }

    def seen() -> set[tuple[str, str]]:
        return {
            (service, span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"))
            for service, span in told.spans(trace_id)
        }

    def orphans() -> list[str]:
        trace = [span for _, span in told.spans(trace_id)]
        ids = {span.span_id.hex() for span in trace} | {""}
        return [span.name for span in trace if span.parent_span_id.hex() not in ids]

    # Each process sends on its own time, so a span may come before the one that it stands below.
    wait_for(lambda: wanted <= seen() and not orphans())
    assert wanted - seen() == set()
    assert [] == orphans()
    named = {(service, span.name) for service, span in told.spans(trace_id)}
    assert {("survey", "POST redcap"), ("gateway-envoy", "GET /api/v1/surveys/data")} <= named

    sent = b"".join(
        message.SerializeToString()
        for signal in told.collector.resources.values()
        for message in list(signal)
    )
    planted = {
        "address": b"planted.canary",
        "cookie": session.encode(),
        "user token": b"eyJhbGciOi",
        "answer": b"Emmy Noether",
        "token of REDCap": told.ready["sandbox"]["token"].encode(),
    }
    assert len(sent) > 10_000
    assert [] == [what for what, value in planted.items() if value in sent]
