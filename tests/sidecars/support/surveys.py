"""A Survey service with configurable responses."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
from amarre.survey.v1 import survey_pb2
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1 import survey_service_pb2_grpc as rpc

from mesh.chassis import call
from mesh.chassis.errors import UnavailableError


class Surveys(rpc.SurveyServiceServicer):
    """Counts its calls; fails and delays as configured."""

    def __init__(self, name: str = "stable") -> None:
        self.name = name
        self.calls: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        self.fails: Callable[[int], bool] = lambda _: False
        """Whether the call with this number is answered with UNAVAILABLE."""
        self.seconds: Callable[[int], float] = lambda _: 0.0
        """How long the call with this number takes."""
        self.caller = ""
        self.metadata: dict[str, Any] = {}

    async def _enter(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self.calls[method] += 1
        number = self.calls[method]
        current = call.current()
        assert current is not None
        self.caller = current.caller.name
        self.metadata = dict(context.invocation_metadata() or ())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.seconds(number))
        finally:
            self.at_once -= 1
        if self.fails(number):
            raise UnavailableError("Told to fail.")

    async def ListRequests(self, request: Any, context: Any) -> pb.ListRequestsResponse:
        await self._enter("ListRequests", context)
        return pb.ListRequestsResponse(requests=[survey_pb2.Request(id=self.name)])

    async def CreateRequest(self, request: Any, context: Any) -> pb.CreateRequestResponse:
        await self._enter("CreateRequest", context)
        return pb.CreateRequestResponse(id=self.name)

    async def GetLink(self, request: Any, context: Any) -> pb.GetLinkResponse:
        await self._enter("GetLink", context)
        return pb.GetLinkResponse(url="https://example.org")

    async def FindContact(self, request: Any, context: Any) -> pb.FindContactResponse:
        await self._enter("FindContact", context)
        return pb.FindContactResponse()

    async def ExportData(self, request: Any, context: Any) -> Any:
        await self._enter("ExportData", context)
        yield pb.ExportDataResponse()

    async def GetPdf(self, request: Any, context: Any) -> Any:
        await self._enter("GetPdf", context)
        yield pb.GetPdfResponse()

    async def WatchRequests(self, request: Any, context: Any) -> Any:
        await self._enter("WatchRequests", context)
        yield pb.WatchRequestsResponse()
