"""
Where OTLP comes in: gRPC, and HTTP with protobuf or JSON.

Requests are parsed here, so that a malformed one is answered at once; the writer does the rest.
When more waits than may wait, senders are told to come back: exporters retry that.

Source:
    OTLP specification 1.9: failures, throttling, JSON encoding.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mesh.console.intake.otlp_decoder import REQUESTS
from mesh.console.store.intake_counters import IntakeCounters
from mesh.console.store.writer import Writer

MOST_BYTES = 16 * 1024 * 1024
COME_BACK_SECONDS = 1
PROTOBUF, JSON = "application/x-protobuf", "application/json"
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
_IDS = {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}
_GRPC = {400: 3, 413: 8, 429: 14}


class RefusedError(Exception):
    """A request is not taken; carries the HTTP status and a sentence for the sender."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Receiver:
    """Takes requests of either protocol and hands them to the writer."""

    def __init__(self, writer: Writer, intake: IntakeCounters) -> None:
        self._writer = writer
        self._intake = intake

    def take(self, signal: str, body: bytes, *, encoding: str = PROTOBUF) -> Any:
        """
        Take one request and return the answer to it.

        Raises:
            RefusedError: It is malformed, or too much is waiting.
        """
        try:
            request = _parsed(signal, body, encoding)
        except (DecodeError, json_format.ParseError, ValueError, RecursionError) as exc:
            raise self.malformed(signal, f"This is no OTLP request for {signal}.") from exc
        count = _count(signal, request)
        if not self._writer.offer(signal, request, len(body)):
            self._intake.drop(signal, "queue_full", count=count)
            raise RefusedError(429, "More is waiting than can be written; come back in a second.")
        self._intake.took(signal, count)
        return RESPONSES[signal]()

    def malformed(self, signal: str, told: str) -> RefusedError:
        """Count a request that cannot be read and return what to tell its sender."""
        self._intake.drop(signal, "malformed")
        return RefusedError(400, told)

    def cut_short(self, signal: str) -> None:
        """Count a request whose sender went away; nobody is left to be told."""
        self._intake.drop(signal, "cut_short")

    def too_large(self, signal: str) -> RefusedError:
        """Count a request above the limit and return what to tell its sender."""
        self._intake.drop(signal, "too_large")
        return RefusedError(413, f"A request may have {MOST_BYTES} bytes; send smaller batches.")


def grpc_server(receiver: Receiver, address: str) -> grpc.aio.Server:
    """
    Return a server, not started, with the three collector services.

    Raises:
        RuntimeError: The address cannot be bound.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MOST_BYTES),
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
        try:
            return receiver.take(signal, body)
        except RefusedError as exc:
            code = grpc.StatusCode.INVALID_ARGUMENT
            trailers: tuple[tuple[str, bytes], ...] = ()
            if exc.status == 429:
                # UNAVAILABLE with RetryInfo is what every exporter retries.
                code, trailers = grpc.StatusCode.UNAVAILABLE, _retry_info(str(exc))
            await context.abort(code, str(exc), trailers)

    return export


def _retry_info(message: str) -> tuple[tuple[str, bytes], ...]:
    status = status_pb2.Status(code=_GRPC[429], message=message)
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromSeconds(COME_BACK_SECONDS)
    status.details.add().Pack(info)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def http_app(receiver: Receiver) -> Starlette:
    """Return the application that takes ``/v1/traces``, ``/v1/logs`` and ``/v1/metrics``."""
    return Starlette(
        routes=[
            Route(f"/v1/{signal}", _endpoint(receiver, signal), methods=["POST"])
            for signal in REQUESTS
        ]
    )


def _endpoint(receiver: Receiver, signal: str) -> Callable[[Request], Awaitable[Response]]:
    async def take(request: Request) -> Response:
        encoding = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if encoding not in {PROTOBUF, JSON}:
            # Also what keeps other web pages out: a browser sends neither type unasked.
            return _refusal(RefusedError(415, f"Send {PROTOBUF} or {JSON}."), JSON)
        try:
            body = await _body(request, receiver, signal)
            answer = receiver.take(signal, body, encoding=encoding)
        except RefusedError as exc:
            return _refusal(exc, encoding)
        except ClientDisconnect:
            receiver.cut_short(signal)
            return Response(status_code=400)  # Nobody reads it.
        if encoding == JSON:
            return Response(json_format.MessageToJson(answer), media_type=JSON)
        return Response(answer.SerializeToString(), media_type=PROTOBUF)

    return take


def _refusal(error: RefusedError, encoding: str) -> Response:
    status = status_pb2.Status(code=_GRPC.get(error.status, 3), message=str(error))
    headers = {"Retry-After": str(COME_BACK_SECONDS)} if error.status == 429 else {}
    body: str | bytes = status.SerializeToString()
    if encoding == JSON:
        body = json_format.MessageToJson(status)
    return Response(body, error.status, headers, media_type=encoding)


async def _body(request: Request, receiver: Receiver, signal: str) -> bytes:
    """Read the body, unpacked where it is packed, never more than the limit."""
    packing = request.headers.get("content-encoding", "identity").lower()
    if packing not in {"identity", "gzip", "deflate"}:
        raise RefusedError(415, "Send identity, gzip or deflate.")
    unpack = zlib.decompressobj(wbits=47) if packing != "identity" else None
    body = bytearray()
    async for chunk in request.stream():
        try:
            body += unpack.decompress(chunk, MOST_BYTES + 1 - len(body)) if unpack else chunk
        except zlib.error as exc:
            raise receiver.malformed(signal, f"The body is not {packing}.") from exc
        if len(body) > MOST_BYTES:
            raise receiver.too_large(signal)
    return bytes(body)


def _parsed(signal: str, body: bytes, encoding: str) -> Any:
    message = REQUESTS[signal]()
    if encoding == JSON:
        text = json.loads(body, object_pairs_hook=_with_ids)
        if not isinstance(text, dict):
            raise ValueError("a request is a JSON object")
        return json_format.ParseDict(text, message, ignore_unknown_fields=True)
    message.ParseFromString(body)
    return message


def _with_ids(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the JSON object with its ids in base64: OTLP writes them in hexadecimal."""
    return {key: _base64(value) if key in _IDS else value for key, value in pairs}


def _base64(value: Any) -> Any:
    try:
        return base64.b64encode(bytes.fromhex(value)).decode()
    except (TypeError, ValueError, binascii.Error):
        raise ValueError("an id is not hexadecimal") from None


def _count(signal: str, request: Any) -> int:
    match signal:
        case "traces":
            return sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
        case "logs":
            return sum(len(s.log_records) for r in request.resource_logs for s in r.scope_logs)
        case _:
            return sum(len(s.metrics) for r in request.resource_metrics for s in r.scope_metrics)
