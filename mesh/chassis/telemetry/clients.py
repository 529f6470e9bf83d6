"""Telemetry of systems outside the mesh: HTTP back-ends and databases."""

import functools
import ssl
import sys
import time
from collections.abc import Collection
from typing import Any

import httpx
from opentelemetry import propagate
from opentelemetry.trace import SpanKind

from mesh.chassis.telemetry import names, tracing
from mesh.chassis.telemetry.metrics import DB_CONNECTIONS, DB_SECONDS, HTTP_CLIENT_SECONDS

_OPERATIONS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
_PORTS = {"http": 80, "https": 443}
_BEGUN = "amarre_begun"
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)
_watching = False


@functools.cache
def public_roots() -> ssl.SSLContext:
    """Return the TLS context of HTTP clients; OpenSSL takes 50 ms or more to read the roots."""
    return httpx.create_ssl_context(trust_env=False)


def http_client(
    backend: str = "",
    *,
    segments: Collection[str] = (),
    transport: httpx.AsyncBaseTransport | None = None,
    uds: str | None = None,
    limits: httpx.Limits = _LIMITS,
    **options: Any,
) -> httpx.AsyncClient:
    """
    Return an HTTP client that ignores proxies and CA variables of the environment.

    Args:
        backend: Measure and trace requests under this name, such as ``redcap``; empty: do not.
            Neither path nor query is recorded, since they contain user ids.
        segments: The path segments that ``url.template`` keeps; others become ``{id}``.
        transport: Replaces the connection pool in tests.
        uds: Path of a Unix socket to connect to.
        limits: Limits of the connection pool; the defaults are those of httpx.
        options: Further options of ``httpx.AsyncClient``.
    """
    pool = transport or httpx.AsyncHTTPTransport(
        uds=uds, limits=limits, trust_env=False, verify=public_roots()
    )
    return httpx.AsyncClient(
        transport=_Observed(backend, frozenset(segments), pool) if backend else pool,
        trust_env=False,
        **options,
    )


class _Observed(httpx.AsyncBaseTransport):
    def __init__(
        self, backend: str, segments: frozenset[str], inner: httpx.AsyncBaseTransport
    ) -> None:
        self._backend = backend
        self._segments = segments
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        port = url.port or _PORTS.get(url.scheme)
        facts = {
            names.HTTP_METHOD: request.method,
            names.URL_TEMPLATE: self._template(url.path),
            **tracing.peer(self._backend, url.host, port),
        }
        started = time.perf_counter()
        status = "error"
        with tracing.client(f"{request.method} {self._backend}", facts) as span:
            propagate.inject(request.headers)
            try:
                response = await self._inner.handle_async_request(request)
                status = f"{response.status_code // 100}xx"
            finally:
                HTTP_CLIENT_SECONDS.labels(self._backend, status).observe(
                    time.perf_counter() - started, tracing.exemplar()
                )
            if span is not None:
                error = str(response.status_code) if response.status_code >= 500 else ""
                tracing.mark(span, {names.HTTP_STATUS: response.status_code}, error=error)
        return response

    def _template(self, path: str) -> str:
        return "/".join(
            one if not one or one in self._segments else "{id}" for one in path.split("/")
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


def watch_databases() -> None:
    """Measure and trace every statement of SQLAlchemy, if the process uses it."""
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
    facts = {**_database(context.dialect.name, context.engine.url), names.DB_OPERATION: operation}
    span = tracing.start(operation, SpanKind.CLIENT, facts)
    setattr(context, _BEGUN, (operation, time.perf_counter(), span))


@functools.cache
def _database(system: str, url: Any) -> dict[str, str | bool | int | float]:
    """Return the attributes of statements; a file has neither server nor name."""
    if not url.host:
        return {names.DB_SYSTEM: system}
    named = {names.DB_SYSTEM: system, names.DB_NAMESPACE: url.database or ""}
    return named | tracing.peer(system, url.host, url.port)


def _finish(_: Any, __: Any, ___: Any, ____: Any, context: Any, _____: Any) -> None:
    _ended(context, "")


def _fail(failure: Any) -> None:
    _ended(failure.execution_context, type(failure.original_exception).__name__)


def _ended(context: Any, error: str) -> None:
    begun = context.__dict__.pop(_BEGUN, None) if context is not None else None
    if begun is None:
        return
    operation, started, span = begun
    DB_SECONDS.labels(operation).observe(time.perf_counter() - started, tracing.exemplar())
    tracing.end(span, {}, error=error)
