"""Circuit breakers, ejection, faults and canaries, by the statistics of the Envoys."""

import asyncio
import time
from collections import Counter
from datetime import timedelta
from itertools import chain
from typing import Any

import grpc
import pytest
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1.survey_service_pb2_grpc import SurveyServiceStub

from mesh.chassis import call
from mesh.contract import policy
from mesh.render.envoy import InjectedFault, Traffic
from tests.sidecars.support.bed import Bed, bearer, eventually
from tests.sidecars.support.surveys import Surveys

SURVEY = policy.load().service("survey")


async def create(stub: Any) -> str:
    """Make a call without retries; return the replica, or the status."""
    try:
        answer = await stub.CreateRequest(pb.CreateRequestRequest(consent=True), metadata=bearer())
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return str(answer.id)


class TestBreaker:
    async def test_opens_at_the_contract_s_limit(self, bed: Bed) -> None:
        """
        Concurrent calls above ``max_concurrent_requests`` are UNAVAILABLE at once;
        ``upstream_rq_active_overflow`` counts them, and they are not retried.
        """
        surveys = Surveys()
        # Longer than a busy machine takes to send all of them.
        surveys.seconds = lambda number: 0 if number == 1 else 4.0
        await bed.service(surveys)
        caller = await bed.caller()
        limit, more = SURVEY.max_concurrent_requests, 30

        async with bed.through(caller) as channel:
            stub = SurveyServiceStub(channel)
            await create(stub)  # The connection is up; waiting for one has a limit of its own.
            answers = Counter(await asyncio.gather(*(create(stub) for _ in range(limit + more))))

        assert {"stable": limit, "UNAVAILABLE": more} == answers
        assert limit == surveys.most_at_once
        assert more == await caller.counter("cluster.survey.upstream_rq_active_overflow")
        assert 0 == await caller.counter("cluster.survey.upstream_rq_retry")


class TestEjection:
    async def test_replica_without_its_process(self, bed: Bed) -> None:
        """
        A replica whose process has exited behind a running proxy gets no calls after the first
        failure (``membership_healthy`` is 1); when the process is back, it gets calls again.
        """
        good, bad = Surveys("good"), Surveys("bad")
        await bed.service(good, "survey")
        await bed.service(bad, "survey-2")
        caller = await bed.caller()
        healthy = "cluster.survey.membership_healthy"

        async with bed.through(caller) as channel:
            stub = SurveyServiceStub(channel)

            async def answers_of_both() -> bool:
                return {"good", "bad"} <= {await create(stub) for _ in range(10)}

            await eventually(answers_of_both, "both replicas")
            await bed.processes["survey-2"].aclose()
            # Calls of other channels meet the closed process as well; these are one at a time.
            answers = [await create(stub) for _ in range(200)]
            assert 1 == await caller.counter(healthy)
            await bed.serve(bad, "survey-2")
            await eventually(answers_of_both, "the replica whose process is back", within=20)

        assert {"good", "UNAVAILABLE"} >= set(answers)
        assert answers.count("UNAVAILABLE") <= 1
        assert 2 == await caller.counter(healthy)

    async def test_honest_unavailable(self, bed: Bed) -> None:
        """A replica that returns UNAVAILABLE because of a backend stays in rotation."""
        good, bad = Surveys("good"), Surveys("bad")
        bad.fails = lambda _: True
        await bed.service(good, "survey")
        await bed.service(bad, "survey-2")
        caller = await bed.caller()

        async with bed.through(caller) as channel:
            stub = SurveyServiceStub(channel)
            answers = Counter([await create(stub) for _ in range(100)])

        assert {"good", "UNAVAILABLE"} == set(answers)
        assert 10 * SURVEY.outlier.consecutive_failures // 2 <= answers["UNAVAILABLE"]
        assert 2 == await caller.counter("cluster.survey.membership_healthy")
        ejected = "cluster.survey.outlier_detection.ejections_enforced_total"
        assert 0 == await caller.counter(ejected)


class TestFault:
    async def test_delay_and_its_removal(self, bed: Bed) -> None:
        """
        A delay applies only to its method, immediately, and can be removed;
        ``fault.delays_injected`` counts it.
        """
        sidecar = await bed.service(Surveys())
        caller = await bed.caller()
        fault = InjectedFault("survey.ListRequests", delay=timedelta(milliseconds=300))

        async with bed.through(caller) as channel:
            stub = SurveyServiceStub(channel)

            async def took() -> float:
                started = time.monotonic()
                await stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer())
                return time.monotonic() - started

            async def is_slow() -> bool:
                return await took() >= 0.3

            async def is_quick() -> bool:
                return await took() < 0.3

            bed.steer(Traffic(faults=(fault,)))
            await eventually(is_slow, "the delay", within=2)
            other = time.monotonic()
            await create(stub)
            other = time.monotonic() - other
            bed.steer(Traffic())
            await eventually(is_quick, "its removal", within=2)

        assert 0.3 > other
        assert 1 <= await sidecar.counter("http.inbound.fault.delays_injected")

    async def test_abort_for_a_share(self, bed: Bed) -> None:
        """
        An abort of 30 % affects about 30 % of the calls with its status, and none of them reaches
        the service; ``fault.aborts_injected`` is their exact number.
        """
        surveys = Surveys()
        bed.traffic = Traffic(faults=(InjectedFault("survey.CreateRequest", percent=30, abort=8),))
        sidecar = await bed.service(surveys)
        caller = await bed.caller()

        async with bed.through(caller) as channel:
            stub = SurveyServiceStub(channel)
            answers = Counter([await create(stub) for _ in range(400)])

        assert 0.2 < answers["RESOURCE_EXHAUSTED"] / 400 < 0.4
        assert answers["stable"] == surveys.calls["CreateRequest"]
        aborted = await sidecar.counter("http.inbound.fault.aborts_injected")
        assert answers["RESOURCE_EXHAUSTED"] == aborted

    async def test_broken_file_keeps_the_last_good_one(self, bed: Bed) -> None:
        """
        A route file that Envoy rejects changes nothing; ``rds.inbound.update_failure`` and
        ``update_rejected`` count it.
        """
        sidecar = await bed.service(Surveys())
        caller = await bed.caller()
        folder = bed.folder / "survey-envoy" / "routes"
        (folder / ".broken").write_text("resources: [")
        (folder / ".broken").replace(folder / "inbound.yaml")

        async def refused() -> bool:
            found = await sidecar.admin.counters("rds.inbound.update_(failure|rejected)$")
            return any(found.values())

        await eventually(refused, "the refusal")
        async with bed.through(caller) as channel:
            assert "stable" == await create(SurveyServiceStub(channel))


class TestCanary:
    async def test_share(self, bed: Bed) -> None:
        """
        Of 4,000 calls the canary gets 10 % within 2 points, which are four standard deviations;
        ``upstream_rq_completed`` of both clusters agrees.
        """
        bed.traffic = Traffic(weights={"survey": 10})
        await bed.service(Surveys())
        await bed.service(Surveys("canary"), "survey-canary", cluster="survey_canary")
        caller = await bed.caller()

        async with bed.through(caller) as channel:
            stub = SurveyServiceStub(channel)

            async def some() -> list[str]:
                return [await create(stub) for _ in range(200)]

            answers = Counter(chain(*await asyncio.gather(*(some() for _ in range(20)))))

        assert {"stable", "canary"} == set(answers)
        assert 0.08 <= answers["canary"] / 4000 <= 0.12
        counted = await caller.counter("cluster.survey_canary.upstream_rq_completed")
        assert answers["canary"] == counted

    @pytest.mark.parametrize("weight", [0, 10])
    async def test_header(self, bed: Bed, weight: int) -> None:
        """A call with ``x-canary: 1`` goes to the canary, whatever its weight."""
        bed.traffic = Traffic(weights={"survey": weight})
        await bed.service(Surveys())
        await bed.service(Surveys("canary"), "survey-canary", cluster="survey_canary")
        caller = await bed.caller()

        call.to_canary.set(True)
        async with bed.through(caller) as channel:
            stub = SurveyServiceStub(channel)
            answers = Counter([await create(stub) for _ in range(30)])

        assert {"canary": 30} == answers

    async def test_new_share_is_live_at_once(self, bed: Bed) -> None:
        """A weight of 100 % applies to every call within a second of the file's move."""
        bed.traffic = Traffic(weights={"survey": 0})
        await bed.service(Surveys())
        await bed.service(Surveys("canary"), "survey-canary", cluster="survey_canary")
        caller = await bed.caller()

        async with bed.through(caller) as channel:
            stub = SurveyServiceStub(channel)
            before = await create(stub)
            bed.steer(Traffic(weights={"survey": 100}))

            async def moved() -> bool:
                return await create(stub) == "canary"

            await eventually(moved, "the new share", within=1)
            after = Counter([await create(stub) for _ in range(30)])

        assert "stable" == before
        assert {"canary": 30} == after

    async def test_header_without_canary(self, bed: Bed) -> None:
        """Without a canary, the header has no effect."""
        await bed.service(Surveys())
        caller = await bed.caller()

        call.to_canary.set(True)
        async with bed.through(caller) as channel:
            assert "stable" == await create(SurveyServiceStub(channel))
