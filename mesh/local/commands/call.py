"""``amarre call``: a typed call over mTLS, JSON in and out."""

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
from amarre.auth.v1 import auth_service_pb2, auth_service_pb2_grpc
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass

from mesh.chassis.channel import channel
from mesh.chassis.config import MeshSettings
from mesh.chassis.errors import from_rpc_error
from mesh.contract import policy
from mesh.contract.policy import Method
from mesh.local.data_folder import DataFolder
from mesh.local.running_mesh import NotRunningError, read_ready_file


class CallRefusedError(Exception):
    """The call cannot be made or failed; the message says why."""


async def call(
    data_folder: DataFolder, name: str, request: str, identity: str, *, session: str = ""
) -> AsyncIterator[str]:
    """Call the method *name* of a running mesh as the workload *identity*.

    Args:
        data_folder: Data folder of the mesh.
        name: ``survey.ListRequests``.
        request: The request as JSON.
        identity: A service account that the local CA has issued for.
        session: Session secret of a user, for methods that need a session.

    Yields:
        Each response as JSON.

    Raises:
        CallRefusedError: The call cannot be made or failed.
    """
    try:
        running = read_ready_file(data_folder)
        method = policy.load().method(name)
        message = _parsed(request, GetMessageClass(method.descriptor.input_type)())
    except NotRunningError as exc:
        raise CallRefusedError(str(exc)) from exc
    except KeyError as exc:
        known = "\n  ".join(m.short_name for m in policy.load())
        raise CallRefusedError(f"There is no method {name}. Methods:\n  {known}") from exc
    except json_format.ParseError as exc:
        raise CallRefusedError(f"The request of {name} is not valid: {exc}") from exc
    folder = data_folder.certs / identity
    if not folder.is_dir():
        known = ", ".join(sorted(p.name for p in data_folder.certs.glob("*")))
        raise CallRefusedError(f"--as {identity}: choose one of {known}.")
    settings = MeshSettings(peers=running["grpc"], svid_dir=folder)
    try:
        async for answer in _call(method, message, settings, session):
            yield json_format.MessageToJson(
                answer, always_print_fields_with_no_presence=True, ensure_ascii=False
            )
    except grpc.aio.AioRpcError as exc:
        error = from_rpc_error(exc)
        facts = "".join(f"\n  {key}: {value}" for key, value in error.metadata.items())
        raise CallRefusedError(f"{exc.code().name}: {error.message}{facts}") from exc


def _parsed(text: str, message: Any) -> Any:
    """Return *message* with the fields of the JSON object *text*.

    Raises:
        json_format.ParseError: It is not a JSON object of this message.
    """
    try:
        return json_format.ParseDict(json.loads(text or "{}"), message)
    except (ValueError, TypeError, AttributeError) as exc:
        raise json_format.ParseError(str(exc)) from exc


async def _call(
    method: Method, message: Any, settings: MeshSettings, session: str
) -> AsyncIterator[Any]:
    metadata = await _user_token(method, settings, session) if session else ()
    async with channel(method.service, settings) as live:
        serializers = {
            "request_serializer": type(message).SerializeToString,
            "response_deserializer": GetMessageClass(method.descriptor.output_type).FromString,
        }
        if method.streams:
            async for answer in live.unary_stream(method.path, **serializers)(
                message, metadata=metadata
            ):
                yield answer
        else:
            yield await live.unary_unary(method.path, **serializers)(message, metadata=metadata)


async def _user_token(
    method: Method, settings: MeshSettings, session: str
) -> tuple[tuple[str, str], ...]:
    async with channel("auth", settings) as live:
        answer = await auth_service_pb2_grpc.AuthServiceStub(live).VerifySession(
            auth_service_pb2.VerifySessionRequest(session_secret=session, audience=method.service)
        )
    return (("authorization", f"Bearer {answer.user_token}"),)
