"""One call of a gRPC method of the mesh, as a workload of it, with what an engineer asks of it."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc
from amarre.auth.v1 import auth_service_pb2, auth_service_pb2_grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from mesh.chassis.channel import channel
from mesh.chassis.config import MeshSettings
from mesh.chassis.errors import from_rpc_error
from mesh.contract import policy
from mesh.contract.policy import Method
from mesh.control import ControlError, Progress
from mesh.local.data_folder import DataFolder
from mesh.local.running_mesh import NotRunningError, read_ready_file

MAX_RESPONSES = 20
"""How many responses of a stream are shown."""
STREAM_SECONDS = 3.0
"""How long a stream that stays open is read."""
MAX_WIRE_BYTES = 4096
"""How much of each message is shown as bytes."""


class CallRefusedError(Exception):
    """The call cannot be made; the message says why."""


@dataclass(frozen=True)
class Prepared:
    """A call that can be made: its method, its request and who makes it."""

    method: Method
    message: Any
    """Of a class that is known at run time only, as are the responses."""
    settings: MeshSettings
    session: str = ""

    async def responses(self, headers: tuple[tuple[str, str], ...] = ()) -> AsyncIterator[Any]:
        """Make the call; yield its responses.

        Raises:
            grpc.aio.AioRpcError: It failed.
        """
        method = self.method
        metadata = (*headers, *(await self._user_token() if self.session else ()))
        async with channel(method.service, self.settings) as live:
            serializers = {
                "request_serializer": type(self.message).SerializeToString,
                "response_deserializer": GetMessageClass(method.descriptor.output_type).FromString,
            }
            if method.streams:
                async for answer in live.unary_stream(method.path, **serializers)(
                    self.message, metadata=metadata
                ):
                    yield answer
            else:
                yield await live.unary_unary(method.path, **serializers)(
                    self.message, metadata=metadata
                )

    async def _user_token(self) -> tuple[tuple[str, str], ...]:
        async with channel("auth", self.settings) as live:
            answer = await auth_service_pb2_grpc.AuthServiceStub(live).VerifySession(
                auth_service_pb2.VerifySessionRequest(
                    session_secret=self.session, audience=self.method.service
                )
            )
        return (("authorization", f"Bearer {answer.user_token}"),)


def prepare(
    data_folder: DataFolder, name: str, request: str, identity: str, session: str = ""
) -> Prepared:
    """Return the call of the method *name* of a running mesh as the workload *identity*.

    Args:
        data_folder: Data folder of the mesh.
        name: ``survey.ListRequests``.
        request: The request as JSON.
        identity: A service account that the local CA has issued for.
        session: Session secret of a user, for methods that need a session.

    Raises:
        CallRefusedError: There is no such mesh, method or identity, or the request is not valid.
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
    accounts = sorted(path.name for path in data_folder.certs.glob("*"))
    if identity not in accounts:
        raise CallRefusedError(
            f"There is no caller {identity}; choose one of {', '.join(accounts)}."
        )
    settings = MeshSettings(peers=running["grpc"], svid_dir=data_folder.certs / identity)
    return Prepared(method, message, settings, session)


@dataclass
class Report:
    """How a call went."""

    code: str
    message: str
    facts: dict[str, str]
    """What the error's details say."""
    duration_ms: float
    deadline_ms: float
    retries: bool
    """Whether the contract lets clients and proxies repeat it."""
    trace_id: str
    request: dict[str, Any]
    """``bytes``, their number, and ``wire``, the first of them in hexadecimal digits."""
    responses: list[dict[str, Any]] = field(default_factory=list)
    """As ``request``, with ``json``."""
    more: bool = False
    """Whether a stream had not ended when enough of it was read."""


async def report(data_folder: DataFolder, arguments: dict[str, Any], progress: Progress) -> Any:
    """Make one traced call and return how it went: the control action ``call``.

    Raises:
        ControlError: It cannot be made.
    """
    try:
        prepared = prepare(
            data_folder,
            str(arguments.get("method")),
            str(arguments.get("request") or ""),
            str(arguments.get("identity") or "gateway"),
            str(arguments.get("session") or ""),
        )
    except CallRefusedError as exc:
        raise ControlError(str(exc)) from exc
    return asdict(await _made(prepared))


async def _made(prepared: Prepared) -> Report:
    method, trace_id = prepared.method, secrets.token_hex(16)
    found = Report(
        code="OK",
        message="",
        facts={},
        duration_ms=0,
        deadline_ms=method.deadline.total_seconds() * 1000,
        retries=method.may_retry,
        trace_id=trace_id,
        request=_on_the_wire(prepared.message),
    )
    headers = (("traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-01"),)
    started = time.perf_counter()
    try:
        async with asyncio.timeout(STREAM_SECONDS if method.stays_open else None):
            async for answer in prepared.responses(headers):
                shown = {**_on_the_wire(answer), "json": json.loads(as_json(answer))}
                found.responses.append(shown)
                if len(found.responses) == MAX_RESPONSES:
                    found.more = True
                    break
    except TimeoutError:
        found.more = True
    except grpc.aio.AioRpcError as exc:
        error = from_rpc_error(exc)
        found.code, found.message = exc.code().name, error.message
        found.facts = dict(error.metadata)
    found.duration_ms = round((time.perf_counter() - started) * 1000, 2)
    return found


def as_json(message: Message) -> str:
    """Return *message* as indented JSON, with fields that have their default."""
    return json_format.MessageToJson(
        message, always_print_fields_with_no_presence=True, ensure_ascii=False
    )


def _on_the_wire(message: Message) -> dict[str, Any]:
    wire = message.SerializeToString()
    return {"bytes": len(wire), "wire": wire[:MAX_WIRE_BYTES].hex()}


def _parsed(text: str, message: Any) -> Any:
    """Return *message* with the fields of the JSON object *text*.

    Raises:
        json_format.ParseError: It is not a JSON object of this message.
    """
    try:
        decoded = json.loads(text or "{}")
        if not isinstance(decoded, dict):
            raise json_format.ParseError("it is not a JSON object")
        return json_format.ParseDict(decoded, message)
    except (ValueError, TypeError, AttributeError) as exc:
        raise json_format.ParseError(str(exc)) from exc
    except RecursionError as exc:
        raise json_format.ParseError("it is nested too deeply") from exc
