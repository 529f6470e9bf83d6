"""
Create the secrets of a Compose installation and give each file to the user that reads it.

Run as root: ``python3 mesh/deploy/compose_secrets.py [--sandbox] [FOLDER]``. It creates what can be
generated, keeps existing files, and lists those that you must add. ``--sandbox`` also generates the
rest, for testing with the REDCap sandbox. Needs only Python and openssl, so it runs on a bare host.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

COMPOSE = Path(__file__).resolve().parent / "compose"
FOLDER = COMPOSE / "secrets"
FROM_PEOPLE = {
    "redcap-token": "the API token of the study's REDCap project",
    "smtp-password": "the password of the mail account",
    "edge/tls.crt": "the certificate chain for the site's DNS name, PEM",
    "edge/tls.key": "the private key of edge/tls.crt, PEM",
    "alertmanager/smtp-password": "the password of the account that sends alerts",
    "alertmanager/slack-url": "the URL of the chat webhook; any URL if there is no chat",
    "alertmanager/webhook-token": "the bearer token of the on-call webhook",
}
MODE = 0o400
OLDEST = {
    "Docker's API": ("1.42", ("version", "--format", "{{.Server.APIVersion}}")),
    "Docker Compose": ("2.20", ("compose", "version", "--short")),
}
"""Oldest versions that have what the stack uses, and the arguments that print the installed one."""


class SecretsError(Exception):
    """A secret or the engine is unusable; the message names it and says what to do."""


def check_engine() -> None:
    """
    Check the versions of engine and Compose, if they are installed and running.

    Raises:
        SecretsError: One is too old.
    """
    docker = shutil.which("docker")
    for what, (oldest, arguments) in OLDEST.items() if docker else ():
        done = subprocess.run(  # noqa: S603 - docker with arguments of this file
            [str(docker), *arguments], capture_output=True, text=True, check=False
        )
        found = done.stdout.strip().removeprefix("v")
        if done.returncode == 0 and _numbers(found) < _numbers(oldest):
            raise SecretsError(
                f"{what} is {found}; the stack needs {oldest} or newer. Nothing was changed."
            )


def check(folder: Path) -> None:
    """
    Check everything that would otherwise stop the work halfway.

    Raises:
        SecretsError: This user may not change owners, openssl is missing, or a file that exists
            cannot be used.
    """
    if os.geteuid() != 0:
        raise SecretsError("Run this as root: each secret belongs to the user that reads it.")
    if shutil.which("openssl") is None:
        raise SecretsError("openssl is missing; install it and run this again.")
    for name in (*FROM_PEOPLE, *json.loads((COMPOSE / "readers.json").read_text())):
        path = folder / name
        if path.exists() and not path.is_file():
            raise SecretsError(f"{path} is not a file; remove it and run this again.")
        if path.is_file() and not path.read_bytes().strip():
            raise SecretsError(f"{path} is empty; write the secret into it, or remove it.")
    certificate, key = (folder / "edge" / name for name in ("tls.crt", "tls.key"))
    if certificate.is_file() and key.is_file():
        _require_pair(certificate, key)


def _require_pair(certificate: Path, key: Path) -> None:
    if _public_key("x509", certificate) != _public_key("pkey", key):
        raise SecretsError(f"{key} is not the private key of {certificate}; nothing was changed.")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:2]]


def make(folder: Path, *, sandbox: bool = False) -> list[str]:
    """Create the missing secrets in *folder*; return their names."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    made = []
    for name, text in (*_generated(folder), *(_of_a_trial() if sandbox else ())):
        path = folder / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True, mode=0o711)
            _write(path, text())
            made.append(name)
    if sandbox and not (folder / "edge/tls.crt").exists():
        _self_signed(folder / "edge")
        made += ["edge/tls.key", "edge/tls.crt"]
    return made


def missing(folder: Path) -> dict[str, str]:
    """Return the files that the operator must add, each with its required content."""
    return {name: what for name, what in FROM_PEOPLE.items() if not (folder / name).is_file()}


def give(folder: Path) -> None:
    """
    Change the owner of every secret to its only reader, and publish the edge's certificate.

    Raises:
        SecretsError: The certificate is invalid.
    """
    _publish(folder / "edge")
    readers = json.loads((COMPOSE / "readers.json").read_text())
    for name, reader in readers.items():
        path = folder / name
        for each in (path, *path.parent.glob(f"..[0-9]*/{path.name}")):
            if each.is_file():
                os.chown(each, reader["uid"], reader["gid"])
                each.chmod(MODE)
    for path in (folder, *(p for p in folder.rglob("*") if p.is_dir() and not p.is_symlink())):
        path.chmod(0o711 if path == folder else 0o755)


def _publish(folder: Path) -> None:
    """
    Point the link ``..data`` to the edge's certificate, atomically.

    Envoy watches the link and reloads the certificate when it changes, as on Kubernetes.
    """
    certificate, key = folder / "tls.crt", folder / "tls.key"
    if not (certificate.is_file() and key.is_file()):
        return
    _require_pair(certificate, key)
    live = folder / "..data"
    files = (certificate, key)
    if live.is_symlink() and all(
        (live / file.name).is_file() and (live / file.name).read_bytes() == file.read_bytes()
        for file in files
    ):
        return
    version = folder / f"..{time.time_ns()}"
    version.mkdir(mode=0o755)
    reader = json.loads((COMPOSE / "readers.json").read_text())["edge/tls.key"]
    for file in files:
        copy = version / file.name
        shutil.copyfile(file, copy)
        os.chown(copy, reader["uid"], reader["gid"])
        copy.chmod(MODE)
    following = folder / "..data_tmp"
    following.unlink(missing_ok=True)
    following.symlink_to(version.name)
    following.replace(live)
    for old in folder.glob("..[0-9]*"):
        if old.name != version.name:
            shutil.rmtree(old)


def _public_key(kind: str, file: Path) -> str:
    arguments = {"x509": ["-noout", "-pubkey"], "pkey": ["-pubout"]}[kind]
    done = _openssl(kind, "-in", str(file), *arguments)
    if done.returncode:
        raise SecretsError(f"{file} cannot be read as PEM: {done.stderr.splitlines()[0]}")
    return done.stdout


def _generated(folder: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield file names and contents; files that others depend on come first."""

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


def _of_a_trial() -> Iterator[tuple[str, Callable[[], str]]]:
    yield "redcap-token", lambda: secrets.token_hex(16).upper()
    yield "smtp-password", _password
    yield "alertmanager/smtp-password", _password
    yield "alertmanager/slack-url", lambda: "http://127.0.0.1:9/no-chat"
    yield "alertmanager/webhook-token", _password


def _self_signed(folder: Path) -> None:
    done = _openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", "90", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")),
        folder=folder,
    )
    if done.returncode:
        raise SecretsError(f"openssl could not create a certificate: {done.stderr.strip()}")


def _password() -> str:
    return secrets.token_hex(24)


def _signing_key() -> str:
    done = _openssl("genpkey", "-algorithm", "ed25519")
    if done.returncode:
        raise SecretsError(f"openssl could not create an Ed25519 key: {done.stderr.strip()}")
    return done.stdout


def _openssl(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    program = shutil.which("openssl")
    if program is None:
        raise SecretsError("openssl is missing; install it and run this again.")
    if folder is not None:
        folder.mkdir(exist_ok=True, mode=0o755)
    return subprocess.run(  # noqa: S603 - openssl with arguments of this file
        [program, *arguments], capture_output=True, text=True, check=False
    )


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def main(arguments: list[str]) -> int:
    """Create secrets, set their owners and report; return 1 while files are missing."""
    sandbox = "--sandbox" in arguments
    folders = [Path(a) for a in arguments if a != "--sandbox"]
    folder = folders[0] if folders else FOLDER
    try:
        check_engine()
        check(folder)
        for name in make(folder, sandbox=sandbox):
            sys.stdout.write(f"created {folder / name}\n")
        give(folder)
    except (SecretsError, OSError) as fault:
        sys.stderr.write(f"{fault}\n")
        return 2
    wanted = missing(folder)
    for name, what in wanted.items():
        sys.stdout.write(f"missing {folder / name}: {what}\n")
    if wanted:
        sys.stdout.write("Add the missing files, then run this again.\n")
    return 1 if wanted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
