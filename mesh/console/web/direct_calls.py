"""gRPC calls from the pages, for operators; the runner of a local mesh makes them."""

import json
from functools import partial
from typing import Any

import structlog
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mesh import control
from mesh.chassis.telemetry import names as emitted
from mesh.console.context import Context
from mesh.console.queries import mesh_status
from mesh.console.web.authentication import operator_of
from mesh.console.web.control_actions import READ_ONLY, read_json
from mesh.console.web.errors import error
from mesh.console.web.parameters import Query
from mesh.contract.policy import Method
from mesh.control import ControlError

MOST_BYTES = 16 * 1024

log = structlog.get_logger("calls")


class _Call(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    request: dict[str, Any] = {}
    identity: str = Field(default="gateway", pattern=r"^[a-z][a-z0-9-]{0,62}$")
    session: str = Field(default="", max_length=512)


_CALL = TypeAdapter(_Call)


def routes(context: Context) -> list[Route]:
    """Return the routes, below ``/api/calls``."""
    return [
        Route("/api/calls", partial(_methods, context), methods=["GET"]),
        Route("/api/calls", partial(_make, context), methods=["POST"]),
    ]


async def _methods(context: Context, request: Request) -> Response:
    """List every method with its contract and an empty request to fill in."""
    Query(request.query_params, [])
    items = [
        {**mesh_status.policy(method), "streams": method.streams, "request": _template(method)}
        for method in context.mesh
    ]
    available = context.control is not None
    return JSONResponse(
        {"items": items, "available": available, "message": "" if available else READ_ONLY}
    )


def _template(method: Method) -> dict[str, Any]:
    empty = GetMessageClass(method.descriptor.input_type)()
    return json_format.MessageToDict(empty, always_print_fields_with_no_presence=True)


async def _make(context: Context, request: Request) -> Response:
    """Make one call and respond with its outcome, also if it failed."""
    if context.control is None:
        return error(409, "steered_elsewhere", READ_ONLY)
    asked = await read_json(request, _CALL, "call", most=MOST_BYTES)
    if isinstance(asked, Response):
        return asked
    by = f"{operator_of(request.scope)} (console)"
    facts = {
        "kind": emitted.KIND_SECURITY,
        "rpc": asked.method,
        "identity": asked.identity,
        "by": by,
    }
    try:
        result = await control.send_action(
            context.control,
            "call",
            by=by,
            method=asked.method,
            request=json.dumps(asked.request),
            identity=asked.identity,
            session=asked.session,
        )
    except ControlError as exc:
        log.warning("direct call failed", **facts)
        return error(409, "refused", str(exc))
    log.info("direct call made", code=result["code"], **facts)
    return JSONResponse(result)
