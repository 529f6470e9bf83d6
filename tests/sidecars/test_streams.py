"""How server streams end whose deadline passes after their first message."""

import asyncio
from typing import Any

import grpc
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1.survey_service_pb2_grpc import SurveyServiceStub

from tests.sidecars.support.bed import Bed, bearer
from tests.sidecars.support.surveys import Surveys

STREAMS, DEADLINE_SECONDS = 80, 1.0


class Endless(Surveys):
    """Streams that send one message and stay open."""

    async def WatchRequests(self, request: Any, context: Any) -> Any:
        async for response in super().WatchRequests(request, context):
            yield response
        await asyncio.Event().wait()


async def test_deadline_of_the_caller(bed: Bed) -> None:
    """
    A stream that its caller's deadline ends has that code, or ends without an error: a proxy whose
    timer is first could only reset it, which callers see as INTERNAL.
    """
    await bed.service(Endless())
    caller = await bed.caller()

    async with bed.through(caller) as channel:

        async def code() -> grpc.StatusCode:
            stream = SurveyServiceStub(channel).WatchRequests(
                pb.WatchRequestsRequest(), metadata=bearer(), timeout=DEADLINE_SECONDS
            )
            await stream.read()
            while await stream.read() is not grpc.aio.EOF:
                pass
            found: grpc.StatusCode = await stream.code()
            return found

        async def end() -> grpc.StatusCode:
            try:
                return await code()
            except grpc.aio.AioRpcError as error:
                return error.code()

        ends = set(await asyncio.gather(*(end() for _ in range(STREAMS))))

    assert ends <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.OK}
