"""What leaves the mesh: HTTP systems behind a service, and databases. Timed, and in the trace."""

import sys
import time
from typing import Any

import httpx
from opentelemetry.trace import SpanKind

from mesh.chassis import call
from mesh.chassis.telemetry import names, tracing
from mesh.chassis.telemetry.metrics import DB_CONNECTIONS, DB_SECONDS, HTTP_CLIENT_SECONDS

_OPERATIONS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
_BEGUN = "amarre_begun"
_watching = False


def observed(
    backend: str, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncBaseTransport:
    """
    Return a transport for httpx that times *backend* (``redcap``) and makes a span per request.

    Neither path nor query is told: they hold ids of users.
    """
    return _Observed(backend, transport or httpx.AsyncHTTPTransport(trust_env=False))


class _Observed(httpx.AsyncBaseTransport):
    def __init__(self, backend: str, inner: httpx.AsyncBaseTransport) -> None:
        self._backend = backend
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        span = tracing.start(
            f"{request.method} {self._backend}",
            SpanKind.CLIENT,
            {names.HTTP_METHOD: request.method, names.SERVER_ADDRESS: request.url.host},
        )
        context = tracing.traceparent_of(span) if span else call.traceparent.get()
        if context:
            request.headers["traceparent"] = context
        started = time.perf_counter()
        status, error = "error", ""
        facts: dict[str, int] = {}
        try:
            response = await self._inner.handle_async_request(request)
            status = f"{response.status_code // 100}xx"
            facts[names.HTTP_STATUS] = response.status_code
            error = str(response.status_code) if response.status_code >= 500 else ""
        except BaseException as exc:
            error = type(exc).__name__
            raise
        finally:
            HTTP_CLIENT_SECONDS.labels(self._backend, status).observe(
                time.perf_counter() - started, tracing.exemplar()
            )
            tracing.end(span, facts, error=error)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


def watch_databases() -> None:
    """Time every statement of every SQLAlchemy engine, where the process uses SQLAlchemy."""
    global _watching
    if _watching or "sqlalchemy" not in sys.modules:
        return
    from sqlalchemy import event
    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import Pool

    _watching = True
    event.listen(Engine, "before_cursor_execute", _begin)
    event.listen(Engine, "after_cursor_execute", _finish)
    event.listen(Engine, "handle_error", _fail)
    event.listen(Pool, "checkout", lambda *_: DB_CONNECTIONS.inc())
    event.listen(Pool, "checkin", lambda *_: DB_CONNECTIONS.dec())


def _begin(_: Any, __: Any, statement: str, ___: Any, context: Any, ____: Any) -> None:
    if context is None:
        return
    word = statement.lstrip().partition(" ")[0].upper()
    operation = word if word in _OPERATIONS else "OTHER"
    span = tracing.start(
        operation,
        SpanKind.CLIENT,
        {names.DB_SYSTEM: context.dialect.name, names.DB_OPERATION: operation},
    )
    setattr(context, _BEGUN, (operation, time.perf_counter(), span))


def _finish(_: Any, __: Any, ___: Any, ____: Any, context: Any, _____: Any) -> None:
    _told(context, "")


def _fail(failure: Any) -> None:
    _told(failure.execution_context, type(failure.original_exception).__name__)


def _told(context: Any, error: str) -> None:
    begun = context.__dict__.pop(_BEGUN, None) if context is not None else None
    if begun is None:
        return
    operation, started, span = begun
    DB_SECONDS.labels(operation).observe(time.perf_counter() - started, tracing.exemplar())
    tracing.end(span, {}, error=error)
