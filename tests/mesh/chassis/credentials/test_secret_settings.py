"""Every setting that names a secret file is rejected by name before the process listens."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from auth_svc.config import AuthSettings
from gateway.config import GatewaySettings
from health_svc.config import HealthSettings
from mesh.chassis.config import MeshSettings
from mesh.console.settings import ConsoleSettings
from survey_svc.config import SurveySettings

PROGRAMS: dict[type[BaseSettings], str] = {
    AuthSettings: "auth_svc",
    ConsoleSettings: "mesh.console",
    GatewaySettings: "gateway",
    HealthSettings: "health_svc",
    SurveySettings: "survey_svc",
}
SECRETS = {
    AuthSettings: {
        "auth_signing_key_file",
        "auth_smtp_password_file",
        "auth_console_token_file",
        "auth_appwrite_key_file",
    },
    ConsoleSettings: {"console_token_file", "console_otlp_token_file"},
    GatewaySettings: set(),
    HealthSettings: set(),
    SurveySettings: {"survey_redcap_token_file"},
}
OF_EVERY_PROCESS = {"pseudonym_key_file"}


def _secret_settings(kind: type[BaseSettings]) -> set[str]:
    """Return the settings whose names indicate a secret file."""
    words = "key", "token", "password", "secret"
    return {
        name
        for name in kind.model_fields
        if name.endswith("_file") and any(word in name.split("_") for word in words)
    }


CASES = [(kind, name) for kind in PROGRAMS for name in sorted(_secret_settings(kind))]


@pytest.mark.parametrize("kind", PROGRAMS, ids=lambda kind: kind.__name__)
def test_known(kind: type[BaseSettings]) -> None:
    """The settings below are complete, so a new one cannot be forgotten."""
    common = OF_EVERY_PROCESS if issubclass(kind, MeshSettings) else set()
    assert _secret_settings(kind) == SECRETS[kind] | common


@pytest.mark.parametrize(
    ("kind", "name"), CASES, ids=[f"{kind.__name__}.{name}" for kind, name in CASES]
)
def test_shared_with_everybody(kind: type[BaseSettings], name: str, tmp_path: Path) -> None:
    """A process with a world-readable secret exits with 2 and says what to do."""
    secret = _secret(tmp_path, 0o644)

    status, output = _start(kind, name, secret, tmp_path)

    assert f"AMARRE_{name.upper()}: every user of this machine has access to {secret}" in output
    assert f"chmod o-rwx {secret}" in output
    assert status == 2
    assert "Traceback" not in output


def test_private(tmp_path: Path) -> None:
    """The same start with a private file succeeds: the check above can fail."""
    _, output = _start(
        AuthSettings, "pseudonym_key_file", _secret(tmp_path, 0o600), tmp_path, survey=False
    )

    assert "AMARRE_PEERS does not name survey" in output
    assert "every user of this machine" not in output


def _secret(folder: Path, mode: int) -> Path:
    secret = folder / "secret"
    secret.write_text("0123456789abcdef0123456789ABCDEF\n")
    secret.chmod(mode)
    return secret


def _start(
    kind: type[BaseSettings], name: str, secret: Path, folder: Path, *, survey: bool = True
) -> tuple[int, str]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "AMARRE_TRANSPORT": "sidecar",
        "AMARRE_PEERS": '{"survey": "127.0.0.1:1"}' if survey else "{}",
        "AMARRE_AUTH_DATABASE": f"sqlite+aiosqlite:///{folder}/auth.db",
        "AMARRE_AUTH_SIGNING_KEY_FILE": f"{folder}/key.pem",
        "AMARRE_AUTH_KEY_SET_LISTEN": f"unix:{folder}/keys.sock",
        "AMARRE_AUTH_SMTP_URL": "smtp://127.0.0.1:25",
        "AMARRE_AUTH_LINK_URL": "http://127.0.0.1:3000/login",
        "AMARRE_SURVEY_REDCAP_URL": "http://127.0.0.1:1/api/",
        "AMARRE_SURVEY_REDCAP_TOKEN_FILE": f"{folder}/secret",
        "AMARRE_CONSOLE_LISTEN": "127.0.0.1:0",
        "AMARRE_CONSOLE_OTLP_HTTP": "127.0.0.1:0",
        "AMARRE_CONSOLE_OTLP_GRPC": "bad address",
        "AMARRE_CONSOLE_DATABASE": f"{folder}/console.sqlite",
        "AMARRE_CONSOLE_TOKEN_FILE": f"{folder}/console-token",
        f"AMARRE_{name.upper()}": str(secret),
    }
    if "console_token" in name and kind is AuthSettings:
        environment["AMARRE_AUTH_CONSOLE_URL"] = "http://127.0.0.1:3020"
    if "appwrite" in name:
        environment |= {
            "AMARRE_AUTH_PROVIDER": "appwrite",
            "AMARRE_AUTH_APPWRITE_ENDPOINT": "http://127.0.0.1:1/v1",
            "AMARRE_AUTH_APPWRITE_PROJECT": "amarre",
        }
    done = subprocess.run(
        [sys.executable, "-m", PROGRAMS[kind]],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr
