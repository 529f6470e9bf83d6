"""
Who may look: the bearer of the token, or a browser that came by a one-time link.

The cookie is stateless, signed with the token, so that a restart signs nobody out and a new token
signs everybody out.
"""

import hashlib
import hmac
import os
import secrets
from datetime import timedelta
from pathlib import Path

from mesh.console.clock import Now

COOKIE = "amarre_console"
SESSION = timedelta(hours=12)
CODE_LIFETIME = timedelta(minutes=10)
MOST_CODES = 32
LEAST_TOKEN = 16


class TokenFileError(Exception):
    """The token cannot be read; the message says what to do."""


class Access:
    """Decides who may look, and hands out one-time codes."""

    def __init__(self, token: str, now: Now) -> None:
        self._token = token.encode()
        self._key = hmac.new(self._token, b"console cookie", hashlib.sha256).digest()
        self._now = now
        self._codes: dict[bytes, int] = {}

    def is_token(self, header: str) -> bool:
        """Say whether an ``Authorization`` header carries the token."""
        scheme, _, given = header.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode(), self._token
        )

    def new_code(self) -> str:
        """Return a code that opens the console once, within 10 minutes."""
        now = self._now()
        self._codes = {code: until for code, until in self._codes.items() if until > now}
        while len(self._codes) >= MOST_CODES:
            del self._codes[next(iter(self._codes))]
        code = secrets.token_urlsafe(24)
        self._codes[_digest(code)] = now + _microseconds(CODE_LIFETIME)
        return code

    def use_code(self, code: str) -> str:
        """Return the cookie that *code* is good for; empty when it is good for none, or no more."""
        until = self._codes.pop(_digest(code), 0)
        if until <= self._now():
            return ""
        ends = str(self._now() + _microseconds(SESSION))
        return f"{ends}.{self._sign(ends)}"

    def is_session(self, cookie: str) -> bool:
        """Say whether a cookie is ours and still good."""
        ends, _, signature = cookie.partition(".")
        genuine = hmac.compare_digest(self._sign(ends).encode(), signature.encode())
        return genuine and ends.isascii() and ends.isdigit() and int(ends) > self._now()

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def read_token(file: Path) -> str:
    """
    Return the token in *file*, making one, for this user alone, when there is no file.

    Raises:
        TokenFileError: The file cannot be read, or holds too short a token.
    """
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
                new.write(secrets.token_urlsafe(32))
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise TokenFileError(
            f"The console's token cannot be read ({exc}). Set AMARRE_CONSOLE_TOKEN_FILE to a "
            "readable file, or to one that can be made."
        ) from exc
    if len(token) < LEAST_TOKEN:
        raise TokenFileError(
            f"The token in {file} has fewer than {LEAST_TOKEN} characters. Remove the file; "
            "the next start makes a good one."
        )
    return token


def _digest(code: str) -> bytes:
    return hashlib.sha256(code.encode()).digest()


def _microseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1e6)
