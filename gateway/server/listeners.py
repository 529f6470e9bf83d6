"""Listeners of the gateway: HTTP, HTTPS or a Unix socket, drained together."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections import Counter
from datetime import timedelta
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import UnreadableInputError
from gateway.rest.envelope import failure
from gateway.server.limits import client_network
from gateway.server.middleware import COMMON_HEADERS
from mesh.chassis.credentials.tls import SvidFiles
from mesh.chassis.http_server import HttpServer
from mesh.chassis.server import ListenError
from mesh.chassis.telemetry import tracing
from mesh.chassis.telemetry.metrics import LIMIT_REFUSALS

HEADER_BYTES = 32 * 1024
"""Maximum size of the request line and headers together."""
KEEP_ALIVE_SECONDS = 30
_TOO_LARGE = "The request headers are too large."
_STARTED_SECONDS = 10.0


class Listener(HttpServer):
    """A uvicorn server on one socket; the process handles signals itself."""

    def __init__(
        self,
        app: ASGIApp,
        address: str,
        *,
        tls_dir: Path | None,
        drain_timeout: timedelta,
        behind_envoy: bool = False,
        connections: "ConnectionLimits | None" = None,
    ) -> None:
        """Bind *address*, with TLS when *tls_dir* is given.

        Raises:
            ListenError: The address cannot be bound, or the certificate cannot be read.
        """
        config = uvicorn.Config(
            app,
            http=limited(None if behind_envoy else connections or ConnectionLimits()),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, int(drain_timeout.total_seconds())),
        )
        config.load()
        config.ssl = certificate(tls_dir) if tls_dir else None
        super().__init__(config)
        self._socket = bind(address)
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def port(self) -> int:
        """The TCP port; 0 for a Unix socket."""
        name = self._socket.getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    async def start(self) -> None:
        """Start serving; returns once connections are accepted."""
        self._task = asyncio.create_task(self.serve([self._socket]))
        async with asyncio.timeout(_STARTED_SECONDS):
            await self._ready.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start serving and report readiness."""
        await super().startup(sockets)
        self._ready.set()

    async def stop(self) -> None:
        """Stop accepting connections and let requests finish within the drain timeout."""
        self.request_stop()
        if self._task is not None:
            await self._task


class ConnectionLimits:
    """Counts open connections, per client address and in total, of all listeners together."""

    def __init__(self, *, per_client: int = 200, total: int = 2000) -> None:
        self._per_client = per_client
        self._total = total
        self._open: Counter[str] = Counter()

    def open(self, client: str) -> bool:
        """Count one more connection of *client*; False when it is above a limit."""
        if self._open[client] >= self._per_client:
            LIMIT_REFUSALS.labels("connections_per_client").inc()
            return False
        if self._open.total() >= self._total:
            LIMIT_REFUSALS.labels("connections_total").inc()
            return False
        self._open[client] += 1
        return True

    def close(self, client: str) -> None:
        """Count one connection of *client* less."""
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]


def limited(limits: ConnectionLimits | None) -> type[HttpToolsProtocol]:
    """Return uvicorn's HTTP protocol with *limits*; connections above them are closed at once.

    Headers above `HEADER_BYTES` are answered with 400: the parser has no limit of its own. Without
    *limits*, behind Envoy, connections are not counted.
    """

    class Limited(HttpToolsProtocol):
        _client: str | None = None
        _head_bytes = 0
        """Bytes received of headers that are not complete."""
        _is_too_large = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            peer = transport.get_extra_info("peername")
            client = client_network(str(peer[0])) if isinstance(peer, tuple) else ""
            if limits is not None and not limits.open(client):
                transport.abort()
                return
            self._client = client
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._client is not None:
                if limits is not None:
                    limits.close(self._client)
                super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._client is None or self.transport.is_closing():
                return
            self._head_bytes += len(data)
            super().data_received(data)
            if self._head_bytes > HEADER_BYTES and not self.transport.is_closing():
                self.send_400_response(_TOO_LARGE)

        def on_headers_complete(self) -> None:
            self._head_bytes = 0
            received = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if received > HEADER_BYTES:
                self._is_too_large = True
                raise ValueError(_TOO_LARGE)  # The parser then answers 400.
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._head_bytes = 0
            super().on_body(body)

        def send_400_response(self, msg: str) -> None:
            """Answer what is not an HTTP/1.1 request, and close the connection."""
            response = failure(UnreadableInputError(_TOO_LARGE if self._is_too_large else msg))
            headers = [
                *response.raw_headers,
                (b"x-request-id", tracing.new_id(128).encode()),
                *COMMON_HEADERS,
                (b"connection", b"close"),
            ]
            lines = [b"HTTP/1.1 400 Bad Request", *(b": ".join(header) for header in headers)]
            self.transport.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
            self.transport.close()

    return Limited


def certificate(folder: Path) -> ssl.SSLContext:
    """Return a TLS context that reloads the certificate in *folder* when it changes.

    Raises:
        ListenError: The certificate cannot be read.
    """
    files = SvidFiles(folder)

    def load() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        return context

    try:
        first = current = load()
        version = files.version()
    except (OSError, ssl.SSLError) as exc:
        raise ListenError(
            f"The certificate in {folder} cannot be read ({exc}). Set AMARRE_GATEWAY_TLS_DIR "
            "to a folder with tls.crt, tls.key and ca.crt."
        ) from exc

    def replace(connection: ssl.SSLObject, _name: str, _context: ssl.SSLContext) -> None:
        # Called for each handshake. An incomplete file keeps the current certificate.
        nonlocal current, version
        with contextlib.suppress(OSError, ssl.SSLError):
            if files.version() != version:
                current, version = load(), files.version()
        connection.context = current

    first.sni_callback = replace
    return first


def bind(address: str) -> socket.socket:
    """Return a listening socket for ``HOST:PORT`` or ``unix:PATH``.

    Raises:
        ListenError: The port is in use or the address is not local.
    """
    try:
        if address.startswith("unix:"):
            return _bind_unix(Path(address.removeprefix("unix:")))
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=512)
    except (OSError, ValueError, OverflowError) as exc:
        raise ListenError(
            f"Cannot listen on {address!r} ({exc}). Stop the other program or set another "
            "HOST:PORT in AMARRE_GATEWAY_HTTP_LISTEN or AMARRE_GATEWAY_HTTPS_LISTEN."
        ) from exc
    # Connections inherit it. Without it asyncio, unlike uvloop, leaves Nagle's algorithm on.
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server


def _bind_unix(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Only this user and its group, which its Envoy shares, may connect.
    before = os.umask(0o117)
    try:
        server.bind(str(path))
    finally:
        os.umask(before)
    server.listen(512)
    return server
