"""Cache keys, which do not reveal ids."""

import hashlib
import json


class CacheKeys:
    """Derives cache keys; *scope* separates projects that share a cache."""

    def __init__(self, scope: str) -> None:
        self._scope = scope

    def rows(self, user: str) -> str:
        """Return the key of a user's rows."""
        return self._key("rows", user)

    def link(self, record: str, instrument: str) -> str:
        """Return the key of a survey link."""
        return self._key("link", record, instrument)

    def _key(self, kind: str, *parts: str) -> str:
        digest = hashlib.sha256(json.dumps([self._scope, *parts]).encode()).hexdigest()
        return f"amarre:survey:{kind}:{digest}"
