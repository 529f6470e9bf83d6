"""
``python -m mesh.deploy.compose_secrets [FOLDER]``: the secrets of a new Compose installation.

Makes what can be made by chance and fits together, keeps what is there, and names what a person
must put in: tokens of others and the certificate of the edge.
"""

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

FOLDER = Path(__file__).resolve().parent / "compose" / "secrets"
FROM_PEOPLE = {
    "redcap-token": "the API token of the study's REDCap project",
    "smtp-password": "the password of the mail account",
    "edge/tls.crt": "the certificate chain of the site's name, PEM",
    "edge/tls.key": "its key, PEM",
    "alertmanager/smtp-password": "the password of the account that sends alerts",
    "alertmanager/slack-url": "where alerts are posted; any text when nobody listens",
}


def make(folder: Path) -> list[str]:
    """Write what is missing below *folder*; returns what it made."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = []
    for name, text in _made(folder):
        path = folder / name
        if not path.exists():
            _write(path, text())
            made.append(name)
    return made


def missing(folder: Path) -> dict[str, str]:
    """Return what people must still put below *folder*, and what it is."""
    return {name: what for name, what in FROM_PEOPLE.items() if not (folder / name).is_file()}


def _made(folder: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield names in an order in which those that others are made from come first."""

    def read(name: str) -> str:
        return (folder / name).read_text().strip()

    for name in ("postgres-password", "postgres-auth-password", "postgres-survey-password"):
        yield name, _password
    yield "redis.conf", lambda: f"requirepass {_password()}\ndir /data\nappendonly yes\n"
    for name, variable in (("auth", "amarre_auth_database"), ("survey", "amarre_survey_store")):
        yield (
            variable,
            lambda name=name: (  # type: ignore[misc]
                f"postgresql+asyncpg://{name}:{read(f'postgres-{name}-password')}@postgres/{name}"
            ),
        )
    yield (
        "amarre_survey_cache",
        lambda: f"redis://:{read('redis.conf').split()[1]}@redis:6379/0",
    )
    yield "auth-signing-key.pem", _signing_key
    yield "pseudonym-key", lambda: secrets.token_hex(32)
    yield "redcap-super-token", lambda: secrets.token_hex(32).upper()
    yield "grafana-password", _password


def _password() -> str:
    return secrets.token_hex(24)


def _signing_key() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def main(arguments: list[str]) -> int:
    """Make what is missing and say what people must add; returns the exit status."""
    folder = Path(arguments[0]) if arguments else FOLDER
    for name in make(folder):
        sys.stdout.write(f"made {folder / name}\n")
    wanted = missing(folder)
    for name, what in wanted.items():
        sys.stdout.write(f"put {what} into {folder / name}\n")
    sys.stdout.write("The containers' user 65532 must be able to read these files.\n")
    return 1 if wanted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
