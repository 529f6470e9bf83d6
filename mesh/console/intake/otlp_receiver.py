"""
The OTLP endpoints: gRPC, and HTTP with protobuf or JSON.

Requests are parsed and decoded here, so that a malformed request fails at once and the sender
learns which items were rejected; the writer does the rest. When the write queue is full, senders
get a retryable error.

Source:
    OTLP specification 1.9: failures, partial success, throttling.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mesh.console.intake import otlp_reader
from mesh.console.intake.otlp_decoder import Decoded, Decoder
from mesh.console.intake.otlp_reader import (
    JSON,
    MAX_BYTES,
    PROTOBUF,
    REQUESTS,
    Decompressor,
    MalformedError,
    TooLargeError,
)
from mesh.console.store.intake_counters import IntakeCounters
from mesh.console.store.writer import Writer

RETRY_AFTER_SECONDS = 1
_GRPC_BYTES = 2 * MAX_BYTES
"""gRPC itself rejects larger requests, uncounted; those above `MAX_BYTES` are counted."""
RESPONSES: dict[str, Any] = {
    "traces": trace_service_pb2.ExportTraceServiceResponse,
    "logs": logs_service_pb2.ExportLogsServiceResponse,
    "metrics": metrics_service_pb2.ExportMetricsServiceResponse,
}
SERVICES = {
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
}
_REJECTED = {
    "traces": "rejected_spans",
    "logs": "rejected_log_records",
    "metrics": "rejected_data_points",
}
_GRPC = {400: 3, 401: 16, 404: 5, 405: 12, 413: 8, 429: 14}


_PATHS = [f"/v1/{signal}" for signal in REQUESTS]


class RejectedError(Exception):
    """A request is rejected as a whole, with an HTTP status and a message for the sender."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Receiver:
    """Receives requests over both protocols and passes their rows to the writer."""

    def __init__(
        self, writer: Writer, intake: IntakeCounters, decoder: Decoder, *, token: str = ""
    ) -> None:
        """
        Args:
            writer: Stores the rows.
            intake: Counts what is received and dropped.
            decoder: Decodes messages to rows.
            token: The bearer token that senders must present; empty accepts every sender.
        """
        self._writer = writer
        self._intake = intake
        self._decoder = decoder
        self._token = token.encode()
        # One thread: the event loop keeps serving pages, and the decoder needs no locks.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="otlp")

    def close(self) -> None:
        """Wait for the current request."""
        self._thread.shutdown()

    def authenticate(self, signal: str, authorization: str) -> None:
        """
        Check the ``Authorization`` header of a sender.

        Raises:
            RejectedError: The token is missing or wrong.
        """
        scheme, _, given = authorization.partition(" ")
        valid = scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode(), self._token
        )
        if self._token and not valid:
            self._intake.drop(signal, "unauthenticated")
            raise RejectedError(
                401, "Send the OTLP token of this console: Authorization: Bearer TOKEN."
            )

    async def take(self, signal: str, body: bytes, *, encoding: str = PROTOBUF) -> Any:
        """
        Handle one request and return the response.

        Raises:
            RejectedError: The request is malformed, or the write queue is full.
        """
        run = asyncio.get_running_loop().run_in_executor
        try:
            found = await run(self._thread, self._decode, signal, body, encoding)
        except MalformedError as exc:
            raise self.malformed(signal, str(exc)) from exc
        if found.rows and not self._writer.offer(signal, found.rows, len(body)):
            self._intake.drop(signal, "queue_full", count=len(found.rows))
            raise RejectedError(429, "The write queue is full; retry in a second.")
        self._intake.receive(signal, len(found.rows))
        return _response(signal, found)

    def _decode(self, signal: str, body: bytes, encoding: str) -> Decoded:
        message, lost = otlp_reader.read(signal, body, encoding)
        return self._decoder.decode(signal, message, lost=lost)

    def malformed(self, signal: str, message: str) -> RejectedError:
        """Count a request that cannot be decoded and return the error for the sender."""
        self._intake.drop(signal, "malformed")
        return RejectedError(400, message)

    def cut_short(self, signal: str) -> None:
        """Count a request whose sender disconnected before the end."""
        self._intake.drop(signal, "cut_short")

    def too_large(self, signal: str) -> RejectedError:
        """Count a request above the size limit and return the error for the sender."""
        self._intake.drop(signal, "too_large")
        return RejectedError(413, f"The limit is {MAX_BYTES} bytes; send smaller batches.")


def _response(signal: str, found: Decoded) -> Any:
    response = RESPONSES[signal]()
    if found.rejected:
        setattr(response.partial_success, _REJECTED[signal], found.rejected.total())
        response.partial_success.error_message = f"Rejected: {found.message}."
    return response


def grpc_server(receiver: Receiver, address: str) -> grpc.aio.Server:
    """
    Return a server with the three collector services, not started.

    Raises:
        RuntimeError: The address cannot be bound.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", _GRPC_BYTES),
            ("grpc.max_concurrent_streams", 32),
            ("grpc.so_reuseport", 0),
        ]
    )
    for signal, service in SERVICES.items():
        handler: Any = grpc.unary_unary_rpc_method_handler(
            _export(receiver, signal),
            response_serializer=lambda message: message.SerializeToString(),
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"Export": handler}),)
        )
    server.add_insecure_port(address)
    return server


def _export(receiver: Receiver, signal: str) -> Callable[[bytes, Any], Awaitable[Any]]:
    async def export(body: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        metadata = dict(context.invocation_metadata() or ())
        try:
            receiver.authenticate(signal, str(metadata.get("authorization", "")))
            if len(body) > MAX_BYTES:
                raise receiver.too_large(signal)
            return await receiver.take(signal, body)
        except RejectedError as exc:
            code = {
                401: grpc.StatusCode.UNAUTHENTICATED,
                413: grpc.StatusCode.RESOURCE_EXHAUSTED,
                # Every exporter retries UNAVAILABLE with RetryInfo.
                429: grpc.StatusCode.UNAVAILABLE,
            }.get(exc.status, grpc.StatusCode.INVALID_ARGUMENT)
            trailers = _retry_info(str(exc)) if exc.status == 429 else ()
            await context.abort(code, str(exc), trailers)

    return export


def _retry_info(message: str) -> tuple[tuple[str, bytes], ...]:
    status = status_pb2.Status(code=_GRPC[429], message=message)
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromSeconds(RETRY_AFTER_SECONDS)
    status.details.add().Pack(info)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def http_app(receiver: Receiver) -> Starlette:
    """Return the application that serves ``/v1/traces``, ``/v1/logs`` and ``/v1/metrics``."""
    application = Starlette(
        routes=[
            Route(f"/v1/{signal}", _endpoint(receiver, signal), methods=["POST"])
            for signal in REQUESTS
        ],
        exception_handlers={404: _elsewhere, 405: _elsewhere},
    )
    # A sender would repeat a redirected POST as a GET.
    application.router.redirect_slashes = False
    return application


async def _elsewhere(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    found = _error(RejectedError(status, f"POST to {', '.join(_PATHS)}."), JSON)
    if status == 405:
        found.headers["Allow"] = "POST"
    return found


def _endpoint(receiver: Receiver, signal: str) -> Callable[[Request], Awaitable[Response]]:
    async def take(request: Request) -> Response:
        encoding = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if encoding not in {PROTOBUF, JSON}:
            # This also rejects other web pages: neither type is CORS-safelisted.
            return _error(RejectedError(415, f"Send {PROTOBUF} or {JSON}."), JSON)
        try:
            receiver.authenticate(signal, request.headers.get("authorization", ""))
            body = await _body(request, receiver, signal)
            response = await receiver.take(signal, body, encoding=encoding)
        except RejectedError as exc:
            return _error(exc, encoding)
        except ClientDisconnect:
            receiver.cut_short(signal)
            return Response(status_code=400)  # The client has disconnected.
        if encoding == JSON:
            return Response(json_format.MessageToJson(response), media_type=JSON)
        return Response(response.SerializeToString(), media_type=PROTOBUF)

    return take


def _error(error: RejectedError, encoding: str) -> Response:
    status = status_pb2.Status(code=_GRPC.get(error.status, 3), message=str(error))
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if error.status == 429 else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="otlp"'
    body: str | bytes = status.SerializeToString()
    if encoding == JSON:
        body = json_format.MessageToJson(status)
    return Response(body, error.status, headers, media_type=encoding)


async def _body(request: Request, receiver: Receiver, signal: str) -> bytes:
    """Read and decompress the body, up to the size limit."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    try:
        body = Decompressor(coding)
    except LookupError:
        raise RejectedError(415, "Send the content coding identity, gzip or deflate.") from None
    try:
        async for chunk in request.stream():
            body.feed(chunk)
        return body.finish()
    except MalformedError as exc:
        raise receiver.malformed(signal, str(exc)) from exc
    except TooLargeError:
        raise receiver.too_large(signal) from None
