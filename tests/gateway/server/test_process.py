"""The gateway process: startup, startup errors, HTTPS and shutdown."""

import asyncio
import json
import os
import signal
import ssl
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from gateway.server.listeners import Listener, bind
from mesh.chassis.server import ListenError
from mesh.chassis.testing import free_port
from mesh.local.pki.certificate_authority import CertificateAuthority, install
from tests.gateway.conftest import World

PEERS = json.dumps(dict.fromkeys(("auth", "survey", "health"), "127.0.0.1:9"))


async def start(svids: Path, **settings: str) -> Process:
    """Start a gateway with *settings*."""
    environment = {
        "PATH": os.environ["PATH"],
        "AMARRE_PEERS": PEERS,
        "AMARRE_SVID_DIR": str(svids / "gateway"),
        "AMARRE_GATEWAY_TLS_DIR": str(svids / "edge"),
        **{f"AMARRE_{name.upper()}": value for name, value in settings.items()},
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway"), env=environment, stdout=PIPE, stderr=STDOUT
    )


async def until_serving(process: Process) -> None:
    """Wait for the log line that reports readiness."""
    assert process.stdout is not None
    lines = []
    async with asyncio.timeout(30):
        while line := await process.stdout.readline():
            lines.append(line.decode())
            if '"serving"' in lines[-1]:
                return
    raise AssertionError("".join(("the gateway ended before it served\n", *lines)))


async def test_http_and_https(svids: Path) -> None:
    """One process serves HTTP and HTTPS and stops on SIGTERM."""
    http, https = free_port(), free_port()
    process = await start(
        svids, gateway_http_listen=f"127.0.0.1:{http}", gateway_https_listen=f"127.0.0.1:{https}"
    )
    try:
        await until_serving(process)
        trust = ssl.create_default_context(cafile=str(svids / "edge" / "ca.crt"))
        async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
            plain = await client.get(f"http://127.0.0.1:{http}/healthz")
            secure = await client.get(f"https://localhost:{https}/healthz")
            unavailable = await client.get(f"http://127.0.0.1:{http}/api/v1/health/status")
        assert {"status": "ok"} == plain.json() == secure.json()
        assert "strict-transport-security" in secure.headers
        assert (503, "unavailable") == (
            unavailable.status_code,
            unavailable.json()["error"]["code"],
        )
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            await process.communicate()
    assert 0 == process.returncode


async def test_unix_socket(svids: Path, tmp_path: Path) -> None:
    """Behind Envoy the Unix socket is not accessible to other users."""
    path = tmp_path / "gateway.sock"
    process = await start(svids, transport="sidecar", gateway_http_listen=f"unix:{path}")
    try:
        await until_serving(process)
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            assert 200 == (await client.get("/healthz")).status_code
        assert 0 == path.stat().st_mode & 0o007
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            await process.communicate()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peers": "{}"}, "AMARRE_PEERS"),
        ({"gateway_http_listen": "127.0.0.1:1"}, "127.0.0.1:1"),
        ({"gateway_http_listen": "nonsense"}, "nonsense"),
        ({"gateway_http_listen": ""}, "AMARRE_GATEWAY_HTTP_LISTEN"),
        ({"gateway_https_listen": "127.0.0.1:0", "gateway_tls_dir": "/none"}, "/none"),
        ({"svid_dir": "/none"}, "AMARRE_SVID_DIR"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
async def test_cannot_start(svids: Path, settings: dict[str, str], message: str) -> None:
    """An invalid setting is reported in one clear sentence with exit status 2."""
    settings = {"gateway_http_listen": "127.0.0.1:0", **settings}
    if os.geteuid() == 0 and settings["gateway_http_listen"].endswith(":1"):
        settings["gateway_http_listen"] = "192.0.2.1:1"  # Not ours, even for root.
        message = "192.0.2.1:1"
    process = await start(svids, **settings)
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert 2 == process.returncode, output
    assert message in output.decode()
    assert "Traceback" not in output.decode()


async def test_certificate_is_replaced(
    authority: CertificateAuthority, tmp_path: Path, world: World
) -> None:
    """A new certificate is served to new connections without a restart."""
    folder = tmp_path / "edge"

    def issue() -> None:
        issued = authority.issue(uris=[], names=["localhost"], common_name="edge")
        install(issued, folder)

    async def serial() -> object:
        context = ssl.create_default_context(cadata=authority.pem().decode())
        _, writer = await asyncio.open_connection("localhost", listener.port, ssl=context)
        shown = writer.get_extra_info("peercert")["serialNumber"]
        writer.close()
        return shown

    issue()
    listener = Listener(
        world.gateway.app, "127.0.0.1:0", tls_dir=folder, drain_timeout=timedelta(seconds=1)
    )
    await listener.start()
    try:
        before = await serial()
        assert before == await serial()
        issue()
        assert before != await serial()
    finally:
        await listener.stop()


def test_port_in_use() -> None:
    """A port in use is named in the error, with what to do."""
    with bind("127.0.0.1:0") as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError, match=address):
            bind(address)
