"""
Typed client channels: mTLS, the server checked, deadlines that shrink, retries by contract.

``Stub(channel(...))`` is all that a client of the mesh needs.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
from opentelemetry.trace import Span, SpanKind

from mesh.chassis import call, telemetry
from mesh.chassis.config import MeshSettings
from mesh.chassis.telemetry import names, tracing
from mesh.chassis.tls import SvidFiles, channel_credentials
from mesh.contract import policy
from mesh.contract.service_config import service_config

HOP_SECONDS = 0.02
"""What each hop keeps of the deadline for itself, so that it can still answer."""
RETIRE_SECONDS = 60.0
"""How long calls in flight may stay on a channel whose certificate was replaced."""
MESSAGE_BYTES = 4 * 1024 * 1024


def channel(service: str, settings: MeshSettings) -> grpc.aio.Channel:
    """
    Return a channel to *service* (``survey``), for use with its generated stub.

    Every call gets the deadline of its contract, or what is left of the call being served when
    that is less, and the trace context of the latter.

    Raises:
        SvidFilesError: The SVID of this process cannot be read.
        KeyError: ``AMARRE_PEERS`` does not say where the service is.
    """
    target = settings.peers[service]
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
    ]
    name = f"{service}.{settings.trust_domain}"
    if settings.transport == "sidecar":
        options.append(("grpc.enable_retries", 0))
        if not _is_host_name(target):
            options.append(("grpc.default_authority", name))
        return _MeshChannel(lambda: grpc.aio.insecure_channel(target, options=options), lambda: "")
    files = SvidFiles(settings.svid_dir)
    options += [
        # The local CA binds this DNS name to one identity; a Python client cannot check the
        # SPIFFE id itself.
        ("grpc.ssl_target_name_override", name),
        ("grpc.service_config", service_config(policy.load().service(service))),
    ]
    return _MeshChannel(
        lambda: grpc.aio.secure_channel(target, channel_credentials(files), options=options),
        files.version,
    )


def _is_host_name(target: str) -> bool:
    """Say whether *target* is HOST:PORT with a name, by which an injected sidecar routes."""
    host = target.rpartition(":")[0]
    return "." in host and ":" not in host and not host.replace(".", "").isdecimal()


class _MeshChannel(grpc.aio.Channel):
    """A channel that is built anew when the certificate behind it is replaced."""

    def __init__(self, build: Callable[[], grpc.aio.Channel], version: Callable[[], str]) -> None:
        self._build = build
        self._version = version
        self._built = version()
        self._channel = build()
        self._retiring: set[asyncio.Task[None]] = set()

    def current(self) -> grpc.aio.Channel:
        """Return the channel with the present certificate."""
        version = self._version()
        if version != self._built:
            old, self._channel, self._built = self._channel, self._build(), version
            task = asyncio.get_running_loop().create_task(old.close(RETIRE_SECONDS))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        return self._channel

    async def __aenter__(self) -> "_MeshChannel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        for task in self._retiring:
            task.cancel()
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - gRPC's signature
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.current().channel_ready()

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Callable(self, "unary_unary", method, args, kwargs)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Callable(self, "unary_stream", method, args, kwargs)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Callable(self, "stream_unary", method, args, kwargs)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Callable(self, "stream_stream", method, args, kwargs)


class _Callable:
    """One method of a stub: adds deadline and trace context, then calls on the live channel."""

    def __init__(
        self, channel: _MeshChannel, kind: str, method: str, args: Any, kwargs: dict[str, Any]
    ) -> None:
        self._channel = channel
        self._make = kind, method, args, kwargs
        self._made_on: grpc.aio.Channel | None = None
        self._call: Any = None
        known = policy.load().by_path.get(method)
        self._deadline = known.deadline.total_seconds() if known else None
        self._labels = (known.service, known.name) if known else None
        self._name = names.span_of(method)
        self._facts = {names.RPC_SYSTEM: "grpc", names.RPC_METHOD: self._name}

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        **kwargs: Any,
    ) -> Any:
        live = self._channel.current()
        if live is not self._made_on:
            kind, method, args, options = self._make
            self._call, self._made_on = getattr(live, kind)(method, *args, **options), live
        pairs = tuple(metadata or ())
        started = time.perf_counter()
        span = tracing.start(self._name, SpanKind.CLIENT, self._facts)
        context = tracing.traceparent_of(span) if span else call.traceparent.get()
        if context and not any(key == "traceparent" for key, _ in pairs):
            pairs += (("traceparent", context),)
        if call.to_canary.get():
            pairs += ((call.CANARY_HEADER, "1"),)
        made = self._call(
            request, timeout=_shorter(timeout, self._deadline), metadata=pairs, **kwargs
        )
        made.add_done_callback(lambda ended: self._tell(ended, started, span, context))
        return made

    def _tell(self, ended: Any, started: float, span: Span | None, context: str) -> None:
        """Count and trace a call that has ended, as whoever made it saw it."""
        code = _known(ended.code()).name
        if self._labels is not None:
            telemetry.RPC_CLIENT_SECONDS.labels(*self._labels, code).observe(
                time.perf_counter() - started, telemetry.exemplar(context)
            )
        if span is not None:
            error = code if code in names.FAULT_CODES else ""
            tracing.end(span, {names.RPC_STATUS: code}, error=error)


def _known(answer: Coroutine[Any, Any, grpc.StatusCode]) -> grpc.StatusCode:
    """Return what *answer* comes to at once, as that of a call which has ended does."""
    try:
        answer.send(None)
    except StopIteration as done:
        code: grpc.StatusCode = done.value
        return code
    answer.close()
    return grpc.StatusCode.UNKNOWN


def _shorter(asked: float | None, contract: float | None) -> float | None:
    left = call.remaining_seconds()
    bounds = [asked, contract, None if left is None else max(0.001, left - HOP_SECONDS)]
    return min((bound for bound in bounds if bound is not None), default=None)
