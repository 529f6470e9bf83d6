"""What stands for a user wherever a process speaks of one: keyed, so that nobody can guess back."""

import hashlib
import hmac
import secrets
from pathlib import Path

_key = secrets.token_bytes(32)


def load_key(file: Path | None) -> None:
    """Take the key from *file*, so that all processes agree; none keeps one of this process."""
    global _key
    if file is not None:
        _key = file.read_bytes()


def pseudonym(user_id: str) -> str:
    """Return what stands for a user in logs, spans and metrics: 16 hexadecimal characters."""
    return hmac.new(_key, user_id.encode(), hashlib.sha256).hexdigest()[:16]
