"""Auth as a process: start, errors at startup, stop."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from amarre.auth.v1 import auth_service_pb2 as pb
from amarre.auth.v1.auth_service_pb2_grpc import AuthServiceStub

from auth_svc.signing_keys.jwks_endpoint import PATH
from mesh.chassis.errors import from_rpc_error
from mesh.chassis.testing import connected, free_port
from mesh.chassis.tokens import fetch_over_http, parse_key_set

START_SECONDS = 60.0


def environment(folder: Path, svids: Path, **changes: str) -> dict[str, str]:
    ours = {
        "AMARRE_LISTEN": f"127.0.0.1:{free_port()}",
        "AMARRE_SVID_DIR": str(svids / "auth"),
        "AMARRE_PEERS": json.dumps({"survey": f"127.0.0.1:{free_port()}"}),
        "AMARRE_KEY_SET_SOCKET": str(folder / "keys.sock"),
        "AMARRE_AUTH_DATABASE": f"sqlite+aiosqlite:///{folder / 'auth.sqlite'}",
        "AMARRE_AUTH_SIGNING_KEY_FILE": str(folder / "key.pem"),
        "AMARRE_AUTH_KEY_SET_LISTEN": f"unix:{folder / 'keys.sock'}",
        "AMARRE_AUTH_SMTP_URL": f"smtp://127.0.0.1:{free_port()}",
        "AMARRE_AUTH_LINK_URL": "http://localhost:3000/login",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AMARRE_")}
    return {**kept, **ours, **changes}


COMMAND = (sys.executable, "-m", "auth_svc")


def refused(env: dict[str, str]) -> tuple[int, str]:
    """Start with an invalid setting; return status and output."""
    done = subprocess.run(
        COMMAND,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=START_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout


@asynccontextmanager
async def running(env: dict[str, str]) -> AsyncIterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        COMMAND, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@asynccontextmanager
async def stub_of(env: dict[str, str], svids: Path) -> AsyncIterator[Any]:
    port = int(env["AMARRE_LISTEN"].rpartition(":")[2])
    async with connected("auth", port, svids / "gateway", AuthServiceStub) as stub:
        yield stub


async def reason_of(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as ei:
        await call
    return from_rpc_error(ei.value).contract.code


class TestProgram:
    async def test_serves_and_stops(self, tmp_path: Path, svids: Path) -> None:
        """It publishes its keys, rejects sign-up while Survey is unavailable, and exits with 0."""
        env = environment(tmp_path, svids)
        async with running(env) as process, stub_of(env, svids) as auth:
            unknown = pb.VerifySessionRequest(session_secret="ab", audience="survey")
            async with asyncio.timeout(START_SECONDS):
                while "unauthenticated" != await reason_of(auth.VerifySession(unknown)):
                    assert process.poll() is None
                    await asyncio.sleep(0.1)
            keys = await fetch_over_http(f"http://auth{PATH}", str(tmp_path / "keys.sock"))()
            assert 1 == len(parse_key_set(keys))
            wish = pb.SignUpRequest(email="ada@example.org")
            assert "unavailable" == await reason_of(auth.SignUp(wish))

            process.send_signal(signal.SIGTERM)
            assert 0 == await asyncio.to_thread(process.wait, START_SECONDS)
            assert process.stdout is not None
            assert "ada@" not in process.stdout.read()
        assert not (tmp_path / "keys.sock").exists()

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("AMARRE_AUTH_DATABASE", "mysql://x/y"),
            ("AMARRE_AUTH_DATABASE", "nonsense"),
            ("AMARRE_AUTH_DATABASE", "sqlite+aiosqlite:////no/such/folder/x.sqlite"),
            ("AMARRE_AUTH_DATABASE", "postgresql+asyncpg://x@127.0.0.1:1/x"),
            ("AMARRE_AUTH_SIGNING_KEY_FILE", "/proc/no/key.pem"),
            ("AMARRE_AUTH_KEY_SET_LISTEN", "nowhere"),
            ("AMARRE_AUTH_SMTP_PASSWORD_FILE", "/no/such/file"),
            ("AMARRE_SVID_DIR", "/no/such/folder"),
            ("AMARRE_RATE_LIMITS", "maybe"),
            ("AMARRE_ALLOWED_EMAIL_DOMAINS", "exa mple"),
        ],
    )
    def test_cannot_start(self, tmp_path: Path, svids: Path, variable: str, value: str) -> None:
        """An invalid setting stops the start with 2 and its name, without a traceback."""
        status, written = refused(environment(tmp_path, svids, **{variable: value}))

        assert 2 == status
        assert variable in written
        assert "Traceback" not in written

    def test_appwrite_needs_more(self, tmp_path: Path, svids: Path) -> None:
        """The provider Appwrite lists all required settings."""
        status, written = refused(environment(tmp_path, svids, AMARRE_AUTH_PROVIDER="appwrite"))

        assert 2 == status
        for name in ("ENDPOINT", "PROJECT", "KEY_FILE"):
            assert f"AMARRE_AUTH_APPWRITE_{name}" in written
        assert "AMARRE_ is not set" not in written

    def test_password_in_a_url_is_not_shown(self, tmp_path: Path, svids: Path) -> None:
        """The error for a bad URL does not contain its password."""
        env = environment(tmp_path, svids, AMARRE_AUTH_SMTP_URL="smtp://ada:hunter2@localhost")
        _, written = refused(env)

        assert "AMARRE_AUTH_SMTP_URL" in written
        assert "hunter2" not in written

    def test_everything_missing(self) -> None:
        """All missing settings are reported at once."""
        bare = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        status, written = refused(bare)

        assert 2 == status
        for name in ("DATABASE", "SIGNING_KEY_FILE", "KEY_SET_LISTEN", "SMTP_URL", "LINK_URL"):
            assert f"AMARRE_AUTH_{name} is not set" in written
