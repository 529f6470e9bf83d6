"""Retries at the caller's sidecar: if the contract permits them, within a budget."""

import asyncio

import grpc
import pytest
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1.survey_service_pb2_grpc import SurveyServiceStub

from mesh.chassis.telemetry import names
from tests.sidecars.support.bed import Bed, bearer
from tests.sidecars.support.surveys import Surveys


class TestRetries:
    async def test_idempotent_method_is_tried_again(self, bed: Bed) -> None:
        """
        ListRequests succeeds if the first attempt is UNAVAILABLE; ``upstream_rq_retry`` counts 1.
        """
        surveys = Surveys()
        surveys.fails = lambda number: number == 1
        await bed.service(surveys)
        caller = await bed.caller()

        async with bed.through(caller) as channel:
            answer = await SurveyServiceStub(channel).ListRequests(
                pb.ListRequestsRequest(), metadata=bearer()
            )

        assert "stable" == answer.requests[0].id
        assert 2 == surveys.calls["ListRequests"]
        assert 1 == await caller.counter("cluster.survey.upstream_rq_retry")
        assert 1 == await caller.counter("cluster.survey.upstream_rq_retry_success")

    async def test_other_method_is_not(self, bed: Bed) -> None:
        """
        CreateRequest is never retried; ``upstream_rq_retry`` stays 0. Both proxies log the failure
        in a line of kind ``error``.
        """
        surveys = Surveys()
        surveys.fails = lambda number: True
        service = await bed.service(surveys)
        caller = await bed.caller()

        async with bed.through(caller) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await SurveyServiceStub(channel).CreateRequest(
                    pb.CreateRequestRequest(consent=True), metadata=bearer()
                )

        assert grpc.StatusCode.UNAVAILABLE == ei.value.code()
        assert 1 == surveys.calls["CreateRequest"]
        assert 0 == await caller.counter("cluster.survey.upstream_rq_retry")
        for proxy in (caller, service):
            line = await proxy.logged(lambda line: line["path"].endswith("/CreateRequest"))
            assert names.KIND_ERROR == line["kind"]

    async def test_slow_try_gets_a_rival(self, bed: Bed) -> None:
        """
        An attempt that takes longer than half the deadline is joined by a second one, whose
        response wins; ``upstream_rq_retry`` counts it, and no attempt was cut off.
        """
        surveys = Surveys()
        surveys.seconds = lambda number: 4.5 if number == 1 else 0
        await bed.service(surveys)
        caller = await bed.caller()

        async with bed.through(caller) as channel:
            started = asyncio.get_running_loop().time()
            await SurveyServiceStub(channel).ListRequests(
                pb.ListRequestsRequest(), metadata=bearer()
            )
            took = asyncio.get_running_loop().time() - started

        assert 2.4 < took < 4
        assert 1 == await caller.counter("cluster.survey.upstream_rq_retry")
        assert 0 == await caller.counter("cluster.survey.upstream_rq_per_try_timeout")

    @pytest.mark.parametrize("at_once", [1, 20], ids=["one after another", "20 at once"])
    async def test_budget(self, bed: Bed, at_once: int) -> None:
        """While everything fails, attempts are at most 1.2 times the calls."""
        calls = 300
        surveys = Surveys()
        surveys.fails = lambda number: True
        await bed.service(surveys)
        caller = await bed.caller()

        async with bed.through(caller) as channel:
            stub = SurveyServiceStub(channel)

            async def call_some() -> None:
                for _ in range(calls // at_once):
                    with pytest.raises(grpc.aio.AioRpcError):
                        await stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer())

            await asyncio.gather(*(call_some() for _ in range(at_once)))

        tried = surveys.calls["ListRequests"]
        assert calls < tried <= 1.2 * calls
        retries = await caller.counter("cluster.survey.upstream_rq_retry")
        assert tried - calls == retries

    async def test_calls_that_succeed_give_back(self, bed: Bed) -> None:
        """Unused reservations of calls are released: after ten calls, one is retried."""
        surveys = Surveys()
        surveys.fails = lambda number: number == 11
        await bed.service(surveys)
        caller = await bed.caller()

        async with bed.through(caller) as channel:
            stub = SurveyServiceStub(channel)
            for _ in range(11):
                await stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer())

        assert 12 == surveys.calls["ListRequests"]
