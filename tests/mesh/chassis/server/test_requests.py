"""Requests, deadlines and errors."""

from pathlib import Path

import grpc
import pytest
from amarre.survey.v1 import survey_service_pb2 as pb
from amarre.survey.v1 import survey_service_pb2_grpc as rpc
from google.protobuf import message_factory
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mesh.chassis.errors import InvalidRequestError, MeshError, from_rpc_error, unpack
from mesh.chassis.interceptors.validation import validate
from mesh.chassis.testing import connected
from mesh.contract import policy, reasons
from mesh.contract.policy import Idempotency, Method
from tests.mesh.chassis.server.surveys import Surveys, bearer, list_requests

TEXTS = [
    pytest.param(method, field.name, id=f"{method.short_name} {field.name}")
    for method in policy.load()
    for field in method.descriptor.input_type.fields
    if field.type == field.TYPE_STRING
]


def fields_refused(request: Message) -> set[str]:
    """Return the fields that validation refuses."""
    try:
        validate(request)
    except InvalidRequestError as error:
        return {violation.field for violation in error.violations}
    return set()


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

    @pytest.mark.parametrize(("method", "field"), TEXTS)
    def test_nul(self, method: Method, field: str) -> None:
        """
        A text with U+0000, which PostgreSQL cannot store, is refused by every method that may
        store something.
        """
        kind = message_factory.GetMessageClass(method.descriptor.input_type)

        refused = fields_refused(kind(**{field: "a\0b"}))

        assert field in refused or method.idempotency is Idempotency.NO_SIDE_EFFECTS

    def test_nul_inside(self) -> None:
        """U+0000 is found at any depth."""
        spans = {"scopeSpans": [{"scope": {"name": "a\0b"}}]}

        refused = fields_refused(ParseDict({"resourceSpans": [spans]}, ExportTraceServiceRequest()))

        assert {"resource_spans"} == refused

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
