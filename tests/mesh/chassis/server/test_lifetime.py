"""Long-lived streams, and calls in flight when a server stops."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1 import survey_service_pb2_grpc as rpc
from prometheus_client import REGISTRY

from mesh.chassis import server
from mesh.chassis.telemetry import names
from mesh.chassis.testing import connected, served
from mesh.contract import policy
from tests.mesh.chassis.server.surveys import KEY, PATIENCE_SECONDS, Surveys, bearer


class TestStreams:
    async def test_lifetime_of_a_stream(
        self, port: int, svids: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A long-lived stream ends normally at its deadline and does not use the error budget."""

        def ended(code: str) -> float:
            labels = {"service": "survey", "method": "WatchRequests", "code": code, "reason": ""}
            return REGISTRY.get_sample_value(f"{names.RPC_SERVER_DURATION}_count", labels) or 0

        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            watched = policy.load().method("survey.WatchRequests")
            monkeypatch.setitem(watched.__dict__, "deadline_seconds", 0.2)
            before = ended("OK")
            stream = stub.WatchRequests(
                pb.WatchRequestsRequest(), metadata=bearer(), timeout=PATIENCE_SECONDS
            )
            assert 1 == len([response async for response in stream])
            assert grpc.StatusCode.OK == await stream.code()

        assert 1 == ended("OK") - before

    async def test_lifetime_ends_while_sending(
        self, port: int, svids: Path, surveys: Surveys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A stream whose lifetime ends while a message waits for a slow client ends after it.

        Cancelled within its own send, gRPC answers nothing, and the client would wait for ever.
        """
        surveys.large = 20
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            watched = policy.load().method("survey.WatchRequests")
            monkeypatch.setitem(watched.__dict__, "deadline_seconds", 0.3)
            stream = stub.WatchRequests(pb.WatchRequestsRequest(), metadata=bearer(), timeout=10)
            await stream.read()
            await asyncio.sleep(0.6)
            late = 0
            while await stream.read() is not grpc.aio.EOF:
                late += 1

            assert grpc.StatusCode.OK == await stream.code()
        assert 1 <= late < 20


async def test_age_of_the_connection(
    svids: Path, surveys: Surveys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream outlives the age of its connection, until its own lifetime ends."""
    options = dict(server.OPTIONS) | {"grpc.max_connection_age_ms": 300}
    monkeypatch.setattr(server, "OPTIONS", tuple(options.items()))
    register = partial(rpc.add_SurveyServiceServicer_to_server, surveys)
    async with (
        served(register, svids / "survey", audience="survey", key=KEY) as port,
        connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub,
    ):
        watched = policy.load().method("survey.WatchRequests")
        monkeypatch.setitem(watched.__dict__, "deadline_seconds", 2.0)
        stream = stub.WatchRequests(pb.WatchRequestsRequest(), metadata=bearer(), timeout=10)
        started = asyncio.get_running_loop().time()
        assert 1 == len([response async for response in stream])
        seconds = asyncio.get_running_loop().time() - started

        assert grpc.StatusCode.OK == await stream.code()
    assert 1.5 < seconds


def test_longest_stream() -> None:
    """Connections wait for the stream with the longest lifetime of all contracts."""
    name, milliseconds = server._grace(policy.load())

    assert "grpc.max_connection_age_grace_ms" == name
    assert max(method.deadline_seconds for method in policy.load()) * 1000 < milliseconds


class TestDrain:
    async def test_call_in_flight_is_kept(self, svids: Path, surveys: Surveys) -> None:
        """A call in flight when the server stops is completed."""

        def register(server: Any) -> None:
            rpc.add_SurveyServiceServicer_to_server(surveys, server)

        serving = served(register, svids / "survey", audience="survey", key=KEY)
        port = await serving.__aenter__()
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            flying = asyncio.ensure_future(
                stub.GetLink(pb.GetLinkRequest(record="slow", instrument="form"), metadata=bearer())
            )
            await surveys.started.wait()
            stopping = asyncio.ensure_future(serving.__aexit__(None, None, None))
            await asyncio.sleep(0)  # the server has been told to stop
            surveys.release.set()
            answer = await flying
            await stopping

        assert "https://late.example.org" == answer.url
