"""
Authentication: the bearer token, or a browser session opened by a one-time link.

The session cookie is stateless and signed with the token: sessions survive a restart and end when
the token is replaced.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import MutableMapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from mesh.chassis.credentials import secret_files
from mesh.chassis.credentials.secret_files import SecretFileError
from mesh.console.clock import Now

COOKIE = "amarre_console"
SESSION = timedelta(hours=12)
CODE_LIFETIME = timedelta(minutes=10)
MOST_CODES = 32
LEAST_TOKEN = 16
BEARER = "bearer of the token"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NOBODY_IN_PARTICULAR = "operator"


class Access:
    """Authenticates requests and issues one-time codes."""

    def __init__(self, token: str, now: Now) -> None:
        self._token = token.encode()
        self._key = hmac.new(self._token, b"console cookie", hashlib.sha256).digest()
        self._now = now
        self._codes: dict[bytes, tuple[int, str]] = {}

    def is_token(self, header: str) -> bool:
        """Return whether an ``Authorization`` header contains the token."""
        scheme, _, given = header.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode(), self._token
        )

    def new_code(self, who: str = "") -> str:
        """Return a one-time sign-in code for the operator *who*, valid for 10 minutes."""
        now = self._now()
        self._codes = {code: kept for code, kept in self._codes.items() if kept[0] > now}
        while len(self._codes) >= MOST_CODES:
            del self._codes[next(iter(self._codes))]
        code = secrets.token_urlsafe(24)
        name = who if _NAME.fullmatch(who) else _NOBODY_IN_PARTICULAR
        self._codes[_digest(code)] = now + _microseconds(CODE_LIFETIME), name
        return code

    def use_code(self, code: str) -> str:
        """Exchange *code* for a session cookie; empty if the code is unknown, used or expired."""
        until, who = self._codes.pop(_digest(code), (0, ""))
        if until <= self._now():
            return ""
        payload = f"{self._now() + _microseconds(SESSION)}.{who}"
        return f"{payload}.{self._sign(payload)}"

    def session(self, cookie: str) -> str:
        """Return the operator of a session cookie; empty if it is invalid or expired."""
        payload, _, signature = cookie.rpartition(".")
        ends, _, who = payload.partition(".")
        genuine = hmac.compare_digest(self._sign(payload).encode(), signature.encode())
        good = genuine and ends.isascii() and ends.isdigit() and int(ends) > self._now()
        return who if good else ""

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def admit(scope: MutableMapping[str, Any], who: str) -> None:
    """Store the operator in an ASGI *scope*."""
    scope["amarre.operator"] = who


def operator_of(scope: MutableMapping[str, Any]) -> str:
    """Return the operator stored in an ASGI *scope*."""
    return str(scope["amarre.operator"])


def read_token(setting: str, file: Path) -> str:
    """
    Return the token in *file*, which *setting* names; create it if the file does not exist.

    Raises:
        SecretFileError: The file cannot be read or created, is not private, or is too short.
    """
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
                new.write(secrets.token_urlsafe(32))
        except OSError as exc:
            raise SecretFileError(
                f"{setting}: cannot create {file}: {exc.strerror}. Name a file that exists, or one"
                " in a folder that this process may write to."
            ) from exc
    return secret_files.read_text(setting, file, least=LEAST_TOKEN)


def _digest(code: str) -> bytes:
    return hashlib.sha256(code.encode()).digest()


def _microseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1e6)
