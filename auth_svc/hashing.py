"""Hashing of secrets and identifiers before they are stored or put into a link."""

import hashlib
import re

_HEXADECIMAL = re.compile(r"[0-9a-fA-F]+")


def digest(secret: str) -> bytes:
    """Return the SHA-256 digest of a secret; secrets have 256 bits, so no salt is needed."""
    return hashlib.sha256(secret.encode()).digest()


def link_handle(user_id: str) -> str:
    """Return the hexadecimal string that identifies the user in a link.

    This is the user id, or a digest of an id that REDCap stores in another format.
    """
    if _HEXADECIMAL.fullmatch(user_id):
        return user_id.lower()
    return hashlib.sha256(user_id.encode()).hexdigest()[:32]
