"""Direct and sidecar mode give the same responses to the same calls."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1 import survey_service_pb2_grpc as rpc

from mesh.chassis.channel import channel
from mesh.chassis.config import MeshSettings
from mesh.chassis.errors import from_rpc_error
from mesh.chassis.testing import served
from mesh.chassis.tokens import SigningKey
from tests.sidecars.support.bed import KEY, Bed, bearer
from tests.sidecars.support.surveys import Surveys

Call = Callable[[Any], Awaitable[Any]]

CALLS: dict[str, tuple[str, Call]] = {
    "good": (
        "gateway",
        lambda stub: stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer()),
    ),
    "nobody signed in": ("gateway", lambda stub: stub.ListRequests(pb.ListRequestsRequest())),
    "token of another key": (
        "gateway",
        lambda stub: stub.ListRequests(
            pb.ListRequestsRequest(), metadata=bearer(key=SigningKey.generate())
        ),
    ),
    "token for another service": (
        "gateway",
        lambda stub: stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer("auth")),
    ),
    "caller not named": (
        "health",
        lambda stub: stub.ListRequests(pb.ListRequestsRequest(), metadata=bearer()),
    ),
    "caller not named, no token": (
        "auth",
        lambda stub: stub.CreateRequest(pb.CreateRequestRequest(consent=True)),
    ),
    "broken rule": (
        "gateway",
        lambda stub: stub.ListRequests(pb.ListRequestsRequest(page_size=-1), metadata=bearer()),
    ),
    "failing": (
        "gateway",
        lambda stub: stub.CreateRequest(pb.CreateRequestRequest(consent=True), metadata=bearer()),
    ),
    "too slow": (
        "gateway",
        lambda stub: stub.GetLink(
            pb.GetLinkRequest(record="1", instrument="form"), metadata=bearer(), timeout=0.2
        ),
    ),
}


class OneSlowOneFailing(Surveys):
    """Lists at once, fails to create, takes a second for a link."""

    async def _enter(self, method: str, context: Any) -> None:
        self.fails = lambda number: method == "CreateRequest"
        self.seconds = lambda number: 1.0 if method == "GetLink" else 0.0
        await super()._enter(method, context)


@contextlib.asynccontextmanager
async def directly(bed: Bed, identity: str) -> AsyncIterator[Any]:
    """Yield a stub for a server that terminates mTLS itself."""

    def register(server: Any) -> None:
        rpc.add_SurveyServiceServicer_to_server(OneSlowOneFailing(), server)

    async with served(register, bed.svids / "survey", audience="survey", key=KEY) as port:
        settings = MeshSettings(
            peers={"survey": f"127.0.0.1:{port}"}, svid_dir=bed.svids / identity
        )
        async with channel("survey", settings) as live:
            yield rpc.SurveyServiceStub(live)


@contextlib.asynccontextmanager
async def behind_envoy(bed: Bed, identity: str) -> AsyncIterator[Any]:
    """Yield a stub for a server whose Envoy terminates mTLS."""
    sidecar = await bed.service(OneSlowOneFailing())
    async with bed.directly(sidecar, bed.svids / identity) as live:
        yield rpc.SurveyServiceStub(live)


async def answer(stub: Any, call: Call) -> tuple[str, str]:
    """Return the status and the reason of a call."""
    try:
        await call(stub)
    except grpc.aio.AioRpcError as error:
        return error.code().name, from_rpc_error(error).contract.name
    return "OK", ""


@pytest.mark.parametrize("name", CALLS)
async def test_same_answer(bed: Bed, name: str) -> None:
    """Status and reason are the same on both transports."""
    identity, call = CALLS[name]

    async with directly(bed, identity) as stub:
        direct = await answer(stub, call)
    async with behind_envoy(bed, identity) as stub:
        sidecar = await answer(stub, call)

    assert direct == sidecar
    assert ("OK" == direct[0]) is (name == "good")
