"""Keys that sign user tokens, and the key set that publishes their public keys.

The file contains one or more Ed25519 private keys in PEM. The first one signs, all are published.
To rotate: append a new key, wait until every verifier has fetched the key set (a minute), move it
to the front, wait until the last old token has expired (a minute), remove the old key. The file is
reread when it changes.
"""

import contextlib
import os
import re
from pathlib import Path

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from mesh.chassis.credentials import secret_files
from mesh.chassis.credentials.secret_files import SecretFileError
from mesh.chassis.server import StartError
from mesh.chassis.tokens import SigningKey

log = structlog.get_logger("keys")

SETTING = "AMARRE_AUTH_SIGNING_KEY_FILE"
_PEM = re.compile(rb"-----BEGIN PRIVATE KEY-----.+?-----END PRIVATE KEY-----\s*", re.DOTALL)


class KeyRing:
    """The keys of a file, reloaded when it changes."""

    def __init__(self, path: Path) -> None:
        """Read the keys; create the file if missing.

        Raises:
            StartError, SecretFileError: As for `load_or_make`.
        """
        self._path = path
        self._keys = load_or_make(path)
        self._read_at = path.stat().st_mtime_ns

    def signing(self) -> SigningKey:
        """Return the current signing key."""
        return self._keys[0]

    def document(self) -> dict[str, object]:
        """Return the public keys as a JSON Web Key Set."""
        return {"keys": [key.jwk() for key in self._keys]}

    def refresh(self) -> bool:
        """Reread the file if it changed; keep the current keys if it is invalid."""
        try:
            changed_at = self._path.stat().st_mtime_ns
            if changed_at == self._read_at:
                return False
            self._keys = parse(_read(self._path))
        except (OSError, ValueError, SecretFileError) as exc:
            log.error("key reload failed, keeping current keys", reason=str(exc))  # noqa: TRY400 - a sentence, no traceback
            return False
        self._read_at = changed_at
        log.info("keys loaded", signing=self._keys[0].kid, published=len(self._keys))
        return True


def load_or_make(path: Path) -> list[SigningKey]:
    """Return the keys in *path*, the signing one first; create the file if missing.

    Raises:
        StartError: The file cannot be created, or does not contain keys.
        SecretFileError: The file cannot be read, or is not private.
    """
    try:
        if not path.exists():
            _make(path)
        return parse(_read(path))
    except OSError as exc:
        raise StartError(
            f"{SETTING} {path}: {exc.strerror}; name a file in a folder that"
            " Auth may write to, or one with an Ed25519 key that it may read."
        ) from exc
    except ValueError as exc:
        raise StartError(f"{SETTING} {path}: {exc}.") from exc


def parse(pem: bytes) -> list[SigningKey]:
    """Return the keys in *pem*, in order.

    Raises:
        ValueError: The file has no key, or a key that is not Ed25519.
    """
    blocks = _PEM.findall(pem)
    if not blocks:
        raise ValueError("it does not contain a private key in PEM (PKCS#8, not encrypted)")
    keys = []
    for block in blocks:
        try:
            key = load_pem_private_key(block, password=None)
        except (TypeError, UnsupportedAlgorithm) as exc:
            raise ValueError("a key in it cannot be read") from exc
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("a key in it is not Ed25519")  # noqa: TRY004 - one kind of fault
        keys.append(SigningKey.of(key))
    return keys


def to_pem(key: SigningKey) -> bytes:
    """Return *key* in the file format."""
    return key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path) -> bytes:
    return secret_files.read(SETTING, path, make="openssl genpkey -algorithm ed25519")


def _make(path: Path) -> None:
    """Write a new key, readable only by this user; among racing replicas, the first one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.touch(mode=0o600, exist_ok=False)
        draft.write_bytes(to_pem(SigningKey.generate()))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)
