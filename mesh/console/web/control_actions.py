"""
Orders from the pages to the mesh: faults, canaries, restarts; and the journal of all orders.

The runner of a local mesh carries them out and records who gave them. Where there is no runner,
as in production, the console watches and the cluster's own tools steer.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, TypeVar

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
from mesh.control import ControlError

MOST_BYTES = 4096
ELSEWHERE = (
    "This mesh is steered elsewhere: nobody takes orders from this console. In a cluster "
    "the rollout controller, kubectl and the mesh's own configuration steer."
)

log = structlog.get_logger("steering")


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _AddFault(_Asked):
    order: Literal["fault add"]
    method: str
    percent: float = Field(default=100, gt=0, le=100)
    delay_ms: float | None = Field(default=None, gt=0, le=600_000)
    abort: str | None = None


class _ClearFault(_Asked):
    order: Literal["fault clear"]
    method: str = ""


class _StartCanary(_Asked):
    # Another program than the service's own is named in the terminal alone: a page that could
    # name one would run anything for whoever holds its cookie.
    order: Literal["canary start"]
    service: str
    weight: int = Field(default=10, ge=0, le=100)
    manual: bool = False


class _SetCanary(_Asked):
    order: Literal["canary set"]
    service: str
    weight: int = Field(ge=0, le=100)


class _Rotate(_Asked):
    order: Literal["rotate"]


class _OfService(_Asked):
    order: Literal["canary promote", "canary abort", "restart"]
    service: str


_ORDER: TypeAdapter[_AddFault | _ClearFault | _StartCanary | _SetCanary | _Rotate | _OfService] = (
    TypeAdapter(
        Annotated[
            _AddFault | _ClearFault | _StartCanary | _SetCanary | _Rotate | _OfService,
            Field(discriminator="order"),
        ]
    )
)


def routes(context: Context) -> list[Route]:
    """Return the routes, below ``/api/orders``."""
    return [
        Route("/api/orders", answering(context, _show), methods=["GET"]),
        Route("/api/orders", answering(context, _take), methods=["POST"]),
    ]


T = TypeVar("T")
Endpoint = Callable[[Context, Request], Awaitable[Response]]


def answering(context: Context, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """Return *endpoint* as Starlette calls it."""

    async def answer(request: Request) -> Response:
        return await endpoint(context, request)

    return answer


async def _show(context: Context, request: Request) -> Response:
    """What is in force, and the last orders with who gave them and when."""
    if context.control is None:
        return JSONResponse(_elsewhere(ELSEWHERE))
    try:
        found = {
            shown: await control.send_action(context.control, order, _quiet, by="console")
            for shown, order in (
                ("faults", "fault list"),
                ("canaries", "canary status"),
                ("items", "audit log"),
            )
        }
    except ControlError as exc:
        return JSONResponse(_elsewhere(str(exc)))
    return JSONResponse({**found, "available": True, "message": ""})


async def verdicts(context: Context) -> dict[str, str]:
    """Return how the canary of each service does: ``wait``, ``healthy`` or ``bad``."""
    if context.control is None:
        return {}
    try:
        found = await control.send_action(context.control, "canary status", _quiet, by="console")
    except ControlError:
        return {}
    return {one["service"]: one["verdict"] for one in found}


def _elsewhere(message: str) -> dict[str, Any]:
    return {"available": False, "message": message, "faults": [], "canaries": [], "items": []}


async def _take(context: Context, request: Request) -> Response:
    """Carry an order out; answers once it is done."""
    if context.control is None:
        return error(409, "steered_elsewhere", ELSEWHERE)
    asked = await read_json(request, _ORDER, "order", most=MOST_BYTES, tags=1)
    if isinstance(asked, Response):
        return asked
    given, told = asked.model_dump(exclude_none=True), list[str]()
    name, by = given.pop("order"), f"{operator_of(request.scope)} (console)"
    try:
        result = await control.send_action(context.control, name, told.append, by=by, **given)
    except ControlError as exc:
        log.warning("order refused", kind=emitted.KIND_SECURITY, order=name, asked=given, by=by)
        return error(409, "refused", str(exc))
    log.info("order given", kind=emitted.KIND_SECURITY, order=name, asked=given, by=by)
    return JSONResponse({"result": result, "told": told})


async def read_json(
    request: Request, form: TypeAdapter[T], what: str, *, most: int, tags: int = 0
) -> T | Response:
    """
    Return what a request asks for, or the answer that refuses it.

    Args:
        request: Its body is JSON.
        form: What the body must be.
        what: What it is called where an error has no place of its own.
        most: The size of the largest body, in bytes.
        tags: How many names of unions stand before the name of a field.
    """
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        return error(400, "invalid_content_type", "Send JSON, as application/json.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            return error(413, "payload_too_large", f"The body has at most {most} bytes.")
    try:
        return form.validate_json(bytes(body))
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"][tags:])
        return error(400, "invalid_request", f"{where or what}: {first['msg']}.")


def _quiet(_: str) -> None:
    """Nobody waits for progress."""
