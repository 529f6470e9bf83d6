"""A minimal Survey service, and calls to it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from amarre.survey.v1 import survey_pb2
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1 import survey_service_pb2_grpc as rpc

from mesh.chassis import call
from mesh.chassis.call import User
from mesh.chassis.errors import NotFoundError
from mesh.chassis.identity import SpiffeId
from mesh.chassis.testing import connected
from mesh.chassis.tokens import SigningKey, mint

KEY = SigningKey.generate()
PATIENCE_SECONDS = 30
ADA = User("ada", "session-1", "ada@example.org", ("applicant",))
GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")


class Surveys(rpc.SurveyServiceServicer):
    """A minimal servicer, to observe what the chassis does around a handler."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds_left: float | None = None
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.large = 0

    async def ListRequests(self, request: Any, context: Any) -> pb.ListRequestsResponse:
        self.calls += 1
        self.seconds_left = call.remaining_seconds()
        return pb.ListRequestsResponse(requests=[survey_pb2.Request(id=call.user().id)])

    async def GetLink(self, request: Any, context: Any) -> pb.GetLinkResponse:
        if request.record == "absent":
            raise NotFoundError("There is no such request.")
        if request.record == "slow":
            self.started.set()
            await self.release.wait()
            return pb.GetLinkResponse(url="https://late.example.org")
        raise RuntimeError(f"a secret inside: {request.record}")

    async def GetPdf(self, request: Any, context: Any) -> AsyncIterator[pb.GetPdfResponse]:
        yield pb.GetPdfResponse()
        raise NotFoundError("There is no such request.")

    async def WatchRequests(
        self, request: Any, context: Any
    ) -> AsyncIterator[pb.WatchRequestsResponse]:
        yield pb.WatchRequestsResponse()
        for _ in range(self.large):
            yield pb.WatchRequestsResponse(event_id="x" * 2_000_000)
        await asyncio.Event().wait()


def make_surveys() -> Surveys:
    return Surveys()


def bearer(audience: str = "survey", caller: SpiffeId = GATEWAY) -> tuple[tuple[str, str], ...]:
    token, _ = mint(KEY, ADA, audience=audience, caller=caller)
    return (("authorization", f"Bearer {token}"),)


async def list_requests(port: int, folder: Path, **kwargs: Any) -> Any:
    async with connected("survey", port, folder, rpc.SurveyServiceStub) as stub:
        return await stub.ListRequests(pb.ListRequestsRequest(), **kwargs)


async def refused(port: int, folder: Path, **kwargs: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as ei:
        await list_requests(port, folder, timeout=3, **kwargs)
    return ei.value
