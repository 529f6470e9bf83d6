"""
Control actions from the pages: faults, canaries, restarts; and the audit log.

The runner of a local mesh carries them out and records who asked for them. Without a runner, as in
production, the console is read-only.
"""

from functools import partial
from typing import Annotated, Any, Literal, TypeVar, get_args

import structlog
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mesh import control
from mesh.chassis.telemetry import names as emitted
from mesh.console.context import Context
from mesh.console.web.authentication import operator_of
from mesh.console.web.errors import error
from mesh.console.web.parameters import Query
from mesh.control import ControlError

MOST_BYTES = 4096
READ_ONLY = (
    "This console is read-only: it is not connected to the runner of a local mesh. In a cluster, "
    "use kubectl, the rollout controller and the mesh's own configuration."
)

log = structlog.get_logger("control")
T = TypeVar("T")


class _Action(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _AddFault(_Action):
    order: Literal["fault add"]
    method: str
    percent: float = Field(default=100, gt=0, le=100)
    delay_ms: float | None = Field(default=None, gt=0, le=600_000)
    abort: str | None = None


class _ClearFault(_Action):
    order: Literal["fault clear"]
    method: str = ""


class _StartCanary(_Action):
    # Only the terminal accepts a command: otherwise a stolen cookie could run any program.
    order: Literal["canary start"]
    service: str
    weight: int = Field(default=10, ge=0, le=100)
    manual: bool = False


class _SetCanary(_Action):
    order: Literal["canary set"]
    service: str
    weight: int = Field(ge=0, le=100)


class _Rotate(_Action):
    order: Literal["rotate"]


class _OfService(_Action):
    order: Literal["canary promote", "canary abort", "restart"]
    service: str


_Any = _AddFault | _ClearFault | _StartCanary | _SetCanary | _Rotate | _OfService
_NAMES = sorted(
    name for one in get_args(_Any) for name in get_args(one.model_fields["order"].annotation)
)
_ACTION: TypeAdapter[_Any] = TypeAdapter(Annotated[_Any, Field(discriminator="order")])


def routes(context: Context) -> list[Route]:
    """Return the routes, below ``/api/orders``."""
    return [
        Route("/api/orders", partial(_show, context), methods=["GET"]),
        Route("/api/orders", partial(_run, context), methods=["POST"]),
    ]


async def _show(context: Context, request: Request) -> Response:
    """Active faults and canaries, and the latest control actions."""
    Query(request.query_params, [])
    if context.control is None:
        return JSONResponse(_unavailable(READ_ONLY))
    try:
        found = {
            shown: await control.send_action(context.control, action, by="console")
            for shown, action in (
                ("faults", "fault list"),
                ("canaries", "canary status"),
                ("items", "audit log"),
            )
        }
    except ControlError as exc:
        return JSONResponse(_unavailable(str(exc)))
    return JSONResponse({**found, "available": True, "message": ""})


async def verdicts(context: Context) -> dict[str, str]:
    """Return the verdict on the canary of each service: ``wait``, ``healthy`` or ``bad``."""
    if context.control is None:
        return {}
    try:
        found = await control.send_action(context.control, "canary status", by="console")
    except ControlError:
        return {}
    return {one["service"]: one["verdict"] for one in found}


def _unavailable(message: str) -> dict[str, Any]:
    return {"available": False, "message": message, "faults": [], "canaries": [], "items": []}


async def _run(context: Context, request: Request) -> Response:
    """Carry out a control action and respond when it has ended."""
    if context.control is None:
        return error(409, "steered_elsewhere", READ_ONLY)
    asked = await read_json(request, _ACTION, "order", most=MOST_BYTES, tags=1)
    if isinstance(asked, Response):
        return asked
    arguments, progress = asked.model_dump(exclude_none=True), list[str]()
    name, by = arguments.pop("order"), f"{operator_of(request.scope)} (console)"
    facts = {"kind": emitted.KIND_SECURITY, "action": name, "arguments": arguments, "by": by}
    try:
        result = await control.send_action(
            context.control, name, progress.append, by=by, **arguments
        )
    except ControlError as exc:
        log.warning("control action failed", **facts)
        return error(409, "refused", str(exc))
    log.info("control action done", **facts)
    return JSONResponse({"result": result, "told": progress})


async def read_json(
    request: Request, form: TypeAdapter[T], what: str, *, most: int, tags: int = 0
) -> T | Response:
    """
    Return the validated JSON body of a request, or an error response.

    Args:
        request: The request.
        form: The expected type.
        what: Names the body in errors that are not about a single field.
        most: The maximum size of the body, in bytes.
        tags: The number of union tags that precede the field in an error location.
    """
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        return error(400, "invalid_content_type", "Send the content type application/json.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            return error(413, "payload_too_large", f"The body must not exceed {most} bytes.")
    try:
        return form.validate_json(bytes(body))
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"][tags:])
        if first["type"].startswith("union_tag"):
            return error(400, "invalid_request", f"{what} must be one of {', '.join(_NAMES)}.")
        return error(400, "invalid_request", f"{where or what}: {first['msg']}.")
