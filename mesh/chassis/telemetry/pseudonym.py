"""Keyed pseudonyms of users in logs, spans and metrics."""

import functools
import hashlib
import hmac
import secrets
from pathlib import Path

from mesh.chassis.credentials import secret_files

LEAST_BYTES = 16
_key = secrets.token_bytes(32)


def load_key(file: Path | None) -> None:
    """Read the key from *file*, so that all processes agree; None: use a random key.

    Raises:
        SecretFileError: The file is unusable, or has fewer than `LEAST_BYTES`.
    """
    global _key
    if file is not None:
        _key = secret_files.read("AMARRE_PSEUDONYM_KEY_FILE", file, least=LEAST_BYTES)


def pseudonym(user_id: str) -> str:
    """Return the pseudonym of a user: 16 hexadecimal characters."""
    return _digest(_key, user_id)


@functools.lru_cache(maxsize=1024)
def _digest(key: bytes, user_id: str) -> str:
    return hmac.new(key, user_id.encode(), hashlib.sha256).hexdigest()[:16]
