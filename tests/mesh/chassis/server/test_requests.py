"""Requests, deadlines and errors."""

from pathlib import Path

import grpc
import pytest
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1 import survey_service_pb2_grpc as rpc
from google.rpc import error_details_pb2

from mesh.chassis.errors import MeshError, from_rpc_error, unpack
from mesh.chassis.testing import connected
from mesh.contract import reasons
from tests.mesh.chassis.server.surveys import Surveys, bearer, list_requests


class TestRequests:
    async def test_broken_rule(self, port: int, svids: Path) -> None:
        """
        A request that violates a rule never reaches the handler, and the error names the field.
        """
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await stub.GetLink(pb.GetLinkRequest(record="1"), metadata=bearer())

        error = from_rpc_error(ei.value)
        assert grpc.StatusCode.INVALID_ARGUMENT == ei.value.code()
        assert ["instrument"] == [violation.field for violation in error.violations]

    async def test_deadline_of_the_contract(self, port: int, svids: Path, surveys: Surveys) -> None:
        """A caller's longer deadline is capped by the contract's 5 s."""
        await list_requests(port, svids / "gateway", metadata=bearer(), timeout=3600)

        assert surveys.seconds_left is not None
        assert 4 < surveys.seconds_left <= 5

    async def test_shorter_deadline_of_the_caller(
        self, port: int, svids: Path, surveys: Surveys
    ) -> None:
        """A caller's shorter deadline applies."""
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await stub.GetLink(
                    pb.GetLinkRequest(record="slow", instrument="form"),
                    metadata=bearer(),
                    timeout=0.2,
                )

        assert grpc.StatusCode.DEADLINE_EXCEEDED == ei.value.code()


class TestErrors:
    async def test_error_of_the_tree(self, port: int, svids: Path) -> None:
        """A raised error arrives as its status with exactly one ErrorInfo."""
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await stub.GetLink(
                    pb.GetLinkRequest(record="absent", instrument="form"), metadata=bearer()
                )

        error = from_rpc_error(ei.value)
        info = unpack(error.status, error_details_pb2.ErrorInfo)
        assert grpc.StatusCode.NOT_FOUND == ei.value.code()
        assert info is not None
        assert ("NOT_FOUND", "mesh.amarre") == (info.reason, info.domain)

    async def test_error_within_a_stream(self, port: int, svids: Path) -> None:
        """An error after the first message of a stream arrives with its reason as well."""
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                async for _ in stub.GetPdf(pb.GetPdfRequest(record_id="1"), metadata=bearer()):
                    pass

        assert "NOT_FOUND" == from_rpc_error(ei.value).contract.name

    async def test_unknown_exception(
        self, port: int, svids: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """An unexpected exception is INTERNAL, and its text is not exposed."""
        async with connected("survey", port, svids / "gateway", rpc.SurveyServiceStub) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await stub.GetLink(
                    pb.GetLinkRequest(record="7", instrument="form"), metadata=bearer()
                )

        assert grpc.StatusCode.INTERNAL == ei.value.code()
        assert "secret" not in str(ei.value.details())


def test_every_error_has_a_contract() -> None:
    """Every error class has a reason defined in the contracts."""
    import mesh.chassis.errors as tree

    classes = [c for c in vars(tree).values() if isinstance(c, type) and issubclass(c, MeshError)]
    for kind in classes:
        if kind is not tree.RemoteError:
            found = reasons.find(kind.area, kind.reason)
            assert found is not None
            assert kind.reason == found.name
