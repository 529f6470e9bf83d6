"""Typed client channels: mTLS, server identity, shrinking deadlines, retries by contract.

``Stub(channel(...))`` is all that a client of the mesh needs. This module needs the base
installation only. Importing `mesh.chassis.telemetry` adds spans, propagation and metrics to every
channel, see `instrument`.
"""

import asyncio
import functools
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import grpc

from mesh.chassis import call
from mesh.chassis.config import MeshSettings, SettingsError
from mesh.chassis.credentials.tls import SvidFiles, channel_credentials
from mesh.contract import policy
from mesh.contract.model import Method
from mesh.contract.service_config import service_config
from mesh.contract.wire import CANARY_HEADER, MESSAGE_BYTES

HOP_SECONDS = 0.02
"""The part of the deadline that each hop reserves for its own response."""
VERSION_SECONDS = 0.1
"""How often calls look for a new certificate."""
RETIRE_SECONDS = 60.0
"""How long calls in flight may continue on a channel whose certificate was replaced."""
NO_PROXY: tuple[tuple[str, Any], ...] = (("grpc.enable_http_proxy", 0),)
"""gRPC otherwise uses ``grpc_proxy``, ``https_proxy`` and ``http_proxy``, even for loopback."""

Options = list[tuple[str, Any]]
Metadata = list[tuple[str, str | bytes]]


class Telemetry(Protocol):
    """The telemetry interface of a channel."""

    def interceptors(self) -> Sequence[grpc.aio.ClientInterceptor]:
        """Return the interceptors that create the span of a sampled call."""
        ...

    def continue_trace(self, metadata: Metadata) -> bool:
        """Return whether a call made now becomes a span.

        If not, add the headers that propagate the current trace context to *metadata*.
        """
        ...

    def ended(self, method: Method, code: str, seconds: float) -> None:
        """Record a call that has ended with the gRPC status *code*."""
        ...


_telemetry: Telemetry | None = None


def instrument(telemetry: Telemetry) -> None:
    """Let *telemetry* observe the calls of every channel of this process."""
    global _telemetry
    _telemetry = telemetry


def channel(
    service: str, settings: MeshSettings, *, own_connection: bool = False
) -> grpc.aio.Channel:
    """Return a channel to *service* (``survey``), for use with its generated stub.

    Each call gets the deadline of its contract, or the remaining time of the call being served
    if that is shorter. Channels never use a proxy, whatever ``http_proxy`` and ``grpc_proxy`` say.

    Args:
        service: The name of the service.
        settings: Transport, identity and addresses.
        own_connection: Do not share the connection with other channels, for long-lived
            streams: the number of streams per connection is limited.

    Raises:
        SvidFilesError: The SVID of this process cannot be read.
        SettingsError: ``AMARRE_PEERS`` does not name the service.
    """
    if service not in settings.peers:
        known = json.dumps({**settings.peers, service: "HOST:PORT"})
        raise SettingsError(f"AMARRE_PEERS does not name {service}; set it to {known}.")
    target = settings.peers[service]
    retries: Options = [
        ("grpc.enable_retries", 1),
        ("grpc.service_config", service_config(policy.load().service(service), timeouts=False)),
    ]
    options: Options = [
        *NO_PROXY,
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
    ]
    if own_connection:
        options.append(("grpc.use_local_subchannel_pool", 1))
    name = f"{service}.{settings.trust_domain}"
    if settings.transport == "sidecar":
        if not _is_host_name(target):
            options.append(("grpc.default_authority", name))
        # The proxy retries calls; a stream that has no response yet is opened again from here.
        plain = functools.partial(_plain, target, options, retries)
        return _MeshChannel(plain, lambda: "")
    files = SvidFiles(settings.svid_dir)
    options += [
        # The local CA binds this DNS name to one identity; a Python client cannot check the
        # SPIFFE id itself.
        ("grpc.ssl_target_name_override", name),
        *retries,
    ]
    return _MeshChannel(functools.partial(_mutual_tls, target, options, files), files.version)


def _plain(target: str, options: Options, retries: Options) -> "_Connections":
    def connect(extra: Options, interceptors: Sequence[Any]) -> grpc.aio.Channel:
        more = retries if extra else [("grpc.enable_retries", 0)]
        return grpc.aio.insecure_channel(
            target, options=[*options, *extra, *more], interceptors=interceptors
        )

    return _Connections(connect)


def _mutual_tls(target: str, options: Options, files: SvidFiles) -> "_Connections":
    # One object for all, since connections are shared between channels of equal credentials.
    credentials = channel_credentials(files)

    def connect(extra: Options, interceptors: Sequence[Any]) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(
            target, credentials, options=[*options, *extra], interceptors=interceptors
        )

    return _Connections(connect)


class _Connections:
    """The gRPC channels behind one mesh channel; each is created when it is first used.

    Long-lived streams have separate connections: a server admits 100 streams per connection,
    and watchers must not use up those of unary calls. Sampled calls go through
    interceptors, which gRPC fixes when it creates a channel. The connection itself is shared.
    """

    def __init__(self, connect: Callable[[Options, Sequence[Any]], grpc.aio.Channel]) -> None:
        self._connect = connect
        self._channels: dict[tuple[bool, bool], grpc.aio.Channel] = {}

    def get(self, *, stays_open: bool = False, sampled: bool = False) -> grpc.aio.Channel:
        found = self._channels.get((stays_open, sampled))
        if found is None:
            extra: Options = [("amarre.stays_open", 1)] if stays_open else []
            interceptors = _telemetry.interceptors() if sampled and _telemetry else ()
            found = self._connect(extra, interceptors)
            self._channels[stays_open, sampled] = found
        return found

    async def close(self, grace: float | None = None) -> None:
        await asyncio.gather(*(each.close(grace) for each in self._channels.values()))


def _is_host_name(target: str) -> bool:
    """Whether *target* is HOST:PORT with a host name, by which an injected sidecar routes."""
    host = target.rpartition(":")[0]
    return "." in host and ":" not in host and not host.replace(".", "").isdecimal()


class _MeshChannel(grpc.aio.Channel):
    """A channel that is recreated when the certificate behind it is replaced."""

    def __init__(self, build: Callable[[], _Connections], version: Callable[[], str]) -> None:
        self._build = build
        self._version = version
        self._built = version()
        self._checked_at = 0.0
        self._connections = build()
        self._retiring: set[asyncio.Task[None]] = set()

    def current(self) -> _Connections:
        """Return the connections that use the current certificate."""
        now = time.monotonic()
        if now < self._checked_at + VERSION_SECONDS:
            return self._connections
        version, self._checked_at = self._version(), now
        if version != self._built:
            old, self._connections, self._built = self._connections, self._build(), version
            task = asyncio.get_running_loop().create_task(old.close(RETIRE_SECONDS))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        return self._connections

    async def __aenter__(self) -> "_MeshChannel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        for task in self._retiring:
            task.cancel()
        await self._connections.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - gRPC's signature
        return self._connections.get().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._connections.get().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.current().get().channel_ready()

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Callable(self, "unary_unary", method, args, kwargs)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Callable(self, "unary_stream", method, args, kwargs)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Callable(self, "stream_unary", method, args, kwargs)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _Callable(self, "stream_stream", method, args, kwargs)


class _Callable:
    """One method of a stub: adds deadline and trace context and calls on the current channel."""

    def __init__(
        self, channel: _MeshChannel, kind: str, method: str, args: Any, kwargs: dict[str, Any]
    ) -> None:
        self._channel = channel
        self._make = kind, method, args, kwargs
        self._made_on: _Connections | None = None
        self._calls: dict[bool, Any] = {}
        self._method = policy.load().by_path.get(method)
        self._deadline = self._method.deadline_seconds if self._method else None

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        **kwargs: Any,
    ) -> Any:
        pairs: Metadata = list(metadata or ())
        if call.to_canary.get():
            pairs.append((CANARY_HEADER, "1"))
        sampled = _telemetry is not None and _telemetry.continue_trace(pairs)
        started = time.perf_counter()
        made = self._callable(sampled=sampled)(
            request, timeout=_shorter(timeout, self._deadline), metadata=tuple(pairs), **kwargs
        )
        if _telemetry is not None and self._method is not None:
            made.add_done_callback(functools.partial(self._ended, started))
        return made

    def _callable(self, *, sampled: bool) -> Any:
        live = self._channel.current()
        if live is not self._made_on:
            self._calls, self._made_on = {}, live
        found = self._calls.get(sampled)
        if found is None:
            kind, method, args, options = self._make
            stays_open = self._method is not None and self._method.stays_open
            on = live.get(stays_open=stays_open, sampled=sampled)
            found = self._calls[sampled] = getattr(on, kind)(method, *args, **options)
        return found

    def _ended(self, started: float, ended: Any) -> None:
        if _telemetry is not None and self._method is not None:
            code = _known(ended.code()).name
            _telemetry.ended(self._method, code, time.perf_counter() - started)


def _known(answer: Coroutine[Any, Any, grpc.StatusCode]) -> grpc.StatusCode:
    """Return the result of *answer*, which is available at once for a call that has ended."""
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
