"""The service as a process: startup and shutdown."""

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from amarre.survey.v1 import survey_service_pb2 as messages
from amarre.survey.v1.survey_service_pb2_grpc import SurveyServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.chassis import tokens
from mesh.chassis.call import User
from mesh.chassis.channel import channel
from mesh.chassis.config import MeshSettings
from mesh.chassis.testing import connected, free_port
from tests.survey_svc.killing import GATEWAY, key_set
from tests.survey_svc.sandbox import Sandbox

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
PATIENCE_SECONDS = 60
DRAIN_SECONDS = 60


def _environment(folder: Path, svids: Path, url: str, token: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "AMARRE_LISTEN": f"127.0.0.1:{free_port()}",
        "AMARRE_SVID_DIR": str(svids / "survey"),
        "AMARRE_SURVEY_REDCAP_URL": url,
        "AMARRE_SURVEY_REDCAP_TOKEN_FILE": str(token),
        "AMARRE_SURVEY_STORE": f"sqlite+aiosqlite:///{folder / 'survey.sqlite'}",
        "AMARRE_DRAIN_TIMEOUT": "PT1S",
    }


@contextlib.contextmanager
def _started(environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "survey.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "survey_svc"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


def _output(environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "survey_svc"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


async def _reaches(environment: dict[str, str], svids: Path, status: int) -> bool:
    settings = MeshSettings(
        peers={"survey": environment["AMARRE_LISTEN"]}, svid_dir=svids / "operator"
    )
    ends_at = time.monotonic() + PATIENCE_SECONDS
    async with channel("survey", settings) as live:
        stub = health_pb2_grpc.HealthStub(live)
        while time.monotonic() < ends_at:
            with contextlib.suppress(grpc.aio.AioRpcError):
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
                if answer.status == status:
                    return True
            time.sleep(0.1)
    return False


class TestStart:
    async def test_gets_ready_and_drains(
        self, sandbox: Sandbox, svids: Path, tmp_path: Path
    ) -> None:
        """
        With a REDCap that matches the profile, the process serves, and SIGTERM ends it with 0.
        """
        environment = _environment(tmp_path, svids, sandbox.api_url, sandbox.token_file)

        with _started(environment, tmp_path) as process:
            assert await _reaches(environment, svids, SERVING)

        assert 0 == process.returncode
        assert sandbox.token not in (tmp_path / "survey.log").read_text()

    async def test_does_not_wait_for_watchers(
        self, sandbox: Sandbox, svids: Path, tmp_path: Path
    ) -> None:
        """Long-lived streams end normally on SIGTERM; the process does not wait for them."""
        key = tokens.SigningKey.generate()
        with key_set(key) as url:
            environment = _environment(tmp_path, svids, sandbox.api_url, sandbox.token_file)
            environment |= {
                "AMARRE_KEY_SET_URL": url,
                "AMARRE_DRAIN_TIMEOUT": f"PT{DRAIN_SECONDS}S",
            }
            port = int(environment["AMARRE_LISTEN"].rpartition(":")[2])
            with _started(environment, tmp_path) as process:
                assert await _reaches(environment, svids, SERVING)
                ada = User("ada", "s", "ada@example.org")
                token, _ = tokens.mint(key, ada, audience="survey", caller=GATEWAY)
                async with connected("survey", port, svids / "gateway", SurveyServiceStub) as stub:
                    stream = stub.WatchRequests(
                        messages.WatchRequestsRequest(),
                        metadata=(("authorization", f"Bearer {token}"),),
                    )
                    await stream.read()
                    process.terminate()
                    asked_at = time.monotonic()
                    assert grpc.StatusCode.OK == await stream.code()
                    assert 0 == await asyncio.to_thread(process.wait, PATIENCE_SECONDS)

        assert DRAIN_SECONDS / 2 > time.monotonic() - asked_at

    async def test_redcap_is_unavailable(self, svids: Path, tmp_path: Path) -> None:
        """Without REDCap the process keeps running and is NOT_SERVING."""
        token = tmp_path / "token"
        token.touch(0o600)
        token.write_text(secrets.token_hex(16))
        nobody = f"http://127.0.0.1:{free_port()}/api/"
        environment = _environment(tmp_path, svids, nobody, token)

        with _started(environment, tmp_path) as process:
            assert await _reaches(environment, svids, NOT_SERVING)
            assert process.poll() is None

    async def test_redcap_comes_back(self, sandbox: Sandbox, svids: Path, tmp_path: Path) -> None:
        """A process that started without REDCap serves once REDCap is there."""
        sandbox.fault(mode="html")
        environment = _environment(tmp_path, svids, sandbox.api_url, sandbox.token_file)

        with _started(environment, tmp_path):
            assert await _reaches(environment, svids, NOT_SERVING)
            sandbox.fault()
            assert await _reaches(environment, svids, SERVING)


class TestRefusals:
    def test_wrong_profile(self, sandbox: Sandbox, svids: Path, tmp_path: Path) -> None:
        """A profile that does not match REDCap stops the process, and every fault is listed."""
        profile = tmp_path / "wrong.yaml"
        profile.write_text(
            "name: wrong\n"
            "variables: {record: record_id, created_at: created_at, user: owner, email: email}\n"
            "form: questionnaire\n"
            "opinions:\n"
            "  - {instrument: labo, position: verdict, wanted_when: [{mobilite_type: ['9']}]}\n"
            "export: [form]\n"
            "pdf: form\n"
        )
        environment = _environment(tmp_path, svids, sandbox.api_url, sandbox.token_file)

        code, said = _output(environment | {"AMARRE_SURVEY_PROFILE": str(profile)})

        assert 2 == code
        for fault in ("'owner'", "'questionnaire'", "'verdict'", "'9'"):
            assert fault in said

    def test_wrong_token(self, sandbox: Sandbox, svids: Path, tmp_path: Path) -> None:
        """If REDCap refuses the token, the process exits with an error that says what to do."""
        token = tmp_path / "token"
        token.touch(0o600)
        token.write_text(secrets.token_hex(16))

        code, said = _output(_environment(tmp_path, svids, sandbox.api_url, token))

        assert 2 == code
        assert "AMARRE_SURVEY_REDCAP_TOKEN_FILE" in said
        assert token.read_text() not in said

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("AMARRE_SURVEY_REDCAP_TOKEN_FILE", "/nowhere/token"),
            ("AMARRE_SURVEY_STORE", "sqlite+aiosqlite:////nowhere/survey.sqlite"),
            ("AMARRE_SURVEY_PROFILE", "/nowhere/profile.yaml"),
        ],
    )
    def test_bad_setting(
        self, sandbox: Sandbox, svids: Path, tmp_path: Path, variable: str, value: str
    ) -> None:
        """An invalid setting exits with 2 and its name."""
        environment = _environment(tmp_path, svids, sandbox.api_url, sandbox.token_file)

        code, said = _output(environment | {variable: value})

        assert 2 == code
        assert variable in said or value in said
        assert "Traceback" not in said
