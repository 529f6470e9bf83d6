"""Requests that no browser sends, as raw bytes on a real connection."""

import asyncio
import json

import pytest

from gateway.server.listeners import HEADER_BYTES, Listener
from tests.gateway.conftest import World


async def status_and_body(port: int, head: str) -> tuple[int, bytes]:
    """Send *head* verbatim and return the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n")
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    first, _, rest = answer.partition(b"\r\n\r\n")
    return int(first.split(b" ")[1]), rest


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /none HTTP/1.1\nHost: [", 404),
        ("GET / HTTP/1.1\nHost: a b\nAccept: text/html", 200),
        ("GET /?lang=en HTTP/1.1\nHost: [::1\nAccept: text/html", 200),
        ("GET //evil.test/ HTTP/1.1\nHost: x\nAccept: text/html", 404),
        ("GET /static/%00 HTTP/1.1\nHost: x", 404),
        ("GET /static/a%2f..%2f..%2fsite.py HTTP/1.1\nHost: x", 404),
        (f"GET /static/{'a' * 5000} HTTP/1.1\nHost: x", 404),
        ("GET /api/v1/me%ff HTTP/1.1\nHost: x", 404),
        ("GET /api/v1/me/ HTTP/1.1\nHost: x", 404),
        ("GET /API/v1/me HTTP/1.1\nHost: x", 404),
        ("OPTIONS /api/v1/me HTTP/1.1\nHost: x", 405),
        ("BREW /api/v1/me HTTP/1.1\nHost: x", 400),
        ("CONNECT example.org:443 HTTP/1.1\nHost: x", 400),
        ("GET /api/v1/me HTTP/1.1\nHost: x\nContent-Length: 1\nContent-Length: 2", 400),
        ("POST /signup HTTP/1.1\nHost: x\nContent-Length: 1\nTransfer-Encoding: chunked", 400),
        (f"GET /api/v1/me HTTP/1.1\nHost: x\nX-Long: {'a' * HEADER_BYTES}", 400),
        ("GET /api/v1/me HTTP/1.1\nHost: x" + "\nX-Many: 1234567890" * 3_000, 400),
        ('GET /?tab=<script>&lang=xx&tab=b HTTP/1.1\nHost: x\nCookie: lang="; =;;', 200),
        ("GET /login?userId=%ff&secret=<b> HTTP/1.1\nHost: x\nAccept: text/html", 200),
        ("GET /api/v1/me HTTP/1.1\nHost: x\nCookie: \xff\xfe=1", 401),
        ("GET /api/v1/me HTTP/1.1\nHost: x\ntraceparent: \xff\nx-request-id: \xff", 401),
        ("POST /signup HTTP/1.1\nHost: [::1]\nSec-Fetch-Site: same-origin\nContent-Length: 0", 400),
        ("GET /api/v1/me HTTP/1.1\nHost: x\nContent-Length: 9999999999999999", 413),
    ],
    ids=lambda value: value.split(" HTTP")[0][:40] if isinstance(value, str) else "",
)
async def test_answered(world: World, line: str, status: int) -> None:
    """An unusual request gets its ordinary response, never 500."""
    listener = Listener(
        world.gateway.app, "127.0.0.1:0", tls_dir=None, drain_timeout=world.settings.drain_timeout
    )
    await listener.start()
    try:
        found, body = await status_and_body(listener.port, f"{line}\nConnection: close\n")
    finally:
        await listener.stop()
    assert status == found
    if body.startswith(b"{"):
        assert {"data", "error"} == set(json.loads(body))
    assert b"<script>&" not in body
