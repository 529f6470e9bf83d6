"""Session cookie: opaque, host-only, inaccessible to scripts and to other sites."""

import re
from datetime import UTC, datetime

from starlette.requests import HTTPConnection
from starlette.responses import Response

from mesh.contract.wire import SESSION_COOKIE

NAME = SESSION_COOKIE
_SAFE = re.compile(r"[A-Za-z0-9._~-]{16,1024}")


MOST_READ = 4
"""How many session cookies of one request log-out ends."""


def read(connection: HTTPConnection) -> str:
    """Return the session secret; empty when there is none or more than one."""
    values = _values(connection)
    return values[0] if len(values) == 1 and _SAFE.fullmatch(values[0]) else ""


def read_all(connection: HTTPConnection) -> list[str]:
    """Return every session secret of a request, at most `MOST_READ`."""
    secrets = dict.fromkeys(value for value in _values(connection) if _SAFE.fullmatch(value))
    return list(secrets)[:MOST_READ]


def _values(connection: HTTPConnection) -> list[str]:
    values: list[str] = []
    for header, text in connection.scope["headers"]:
        if header == b"cookie":
            for part in text.decode("latin-1").split(";"):
                name, _, value = part.partition("=")
                if name.strip() == NAME:
                    values.append(value.strip())
    return values


def put(response: Response, secret: str, expires_at: datetime) -> None:
    """Set the session cookie to *secret*.

    Source:
        RFC 6265bis, section 4.1.3.2, for the requirements of the ``__Host-`` prefix.
    """
    if not _SAFE.fullmatch(secret):
        raise ValueError("The session secret has characters that a cookie cannot contain.")
    response.set_cookie(
        NAME,
        secret,
        expires=expires_at.astimezone(UTC),
        path="/",
        secure=True,
        httponly=True,
        samesite="strict",
    )


def clear(response: Response) -> None:
    """Delete the session cookie."""
    response.delete_cookie(NAME, path="/", secure=True, httponly=True, samesite="strict")
