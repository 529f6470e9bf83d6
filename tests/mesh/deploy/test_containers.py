"""
The entry points of the images, as in a container: read-only code, a random user id, only the
declared variables, secrets as files, SIGTERM.
"""

import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mesh.chassis.testing import free_port
from tests.mesh.deploy.containers import Container, give, load, running, until_ready

DEPLOYED = load()
REDCAP_TOKEN = secrets.token_hex(16).upper()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder that the container's user can access, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="amarre-container-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
async def redcap(tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a REDCap sandbox that runs as in its image."""
    folder = tmp_path / "redcap"
    folder.mkdir()
    give(folder)
    (tmp_path / "token").write_text(REDCAP_TOKEN)
    (tmp_path / "super").write_text(secrets.token_hex(32).upper())
    address = f"127.0.0.1:{free_port()}"
    arguments = [
        *("-m", "sandbox.redcap", "--listen", address, "--base-url", f"http://{address}"),
        *("--database", str(folder / "redcap.sqlite")),
        *("--token-file", str(tmp_path / "token"), "--super-token-file", str(tmp_path / "super")),
    ]
    async with running(arguments, {}, folder):
        yield f"http://{address}/api/"


def container(name: str, tmp_path: Path) -> Container:
    found = Container(DEPLOYED, DEPLOYED.workload(name), tmp_path / name)
    found.secret("pseudonym-key", secrets.token_hex(32))
    return found


async def starts_and_stops(made: Container) -> None:
    async with made.running() as process:
        ready = await until_ready(made, process)
        if process.returncode is None:
            process.terminate()
        output, _ = await process.communicate()

        assert ready, output.decode()
        assert 0 == process.returncode, output.decode()


async def test_gateway(tmp_path: Path) -> None:
    """
    The gateway becomes ready with its declared variables and ends on SIGTERM with status 0.
    """
    await starts_and_stops(container("gateway", tmp_path))


async def test_health(tmp_path: Path) -> None:
    """
    Health becomes ready with its declared variables and ends on SIGTERM with status 0.
    """
    await starts_and_stops(container("health", tmp_path))


async def test_auth(tmp_path: Path) -> None:
    """
    Auth becomes ready with its signing key from a read-only secret.
    """
    made = container("auth", tmp_path)
    made.secret("amarre_auth_database", f"sqlite+aiosqlite:///{made.run / 'auth.sqlite'}")
    made.secret("auth-signing-key.pem", _signing_key())
    made.secret("smtp-password", "x")

    await starts_and_stops(made)


async def test_survey(tmp_path: Path, redcap: str) -> None:
    """
    Survey becomes ready as soon as REDCap responds.
    """
    made = container("survey", tmp_path)
    # Production takes no REDCap without TLS; the sandbox of trials has none.
    made.environment |= {"AMARRE_SURVEY_REDCAP_URL": redcap, "AMARRE_ENV": "development"}
    made.secret("amarre_survey_store", f"sqlite+aiosqlite:///{made.run / 'survey.sqlite'}")
    made.secret("amarre_survey_cache", "memory")
    made.secret("redcap-token", REDCAP_TOKEN)

    await starts_and_stops(made)


async def test_missing_secret(tmp_path: Path) -> None:
    """
    A missing secret ends the process with status 2 and a message that names it.
    """
    made = container("survey", tmp_path)
    async with made.running() as process:
        output, _ = await process.communicate()

        assert 2 == process.returncode
        assert "redcap-token" in output.decode()


def _signing_key() -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
