"""Reading what a request says, in Appwrite's words when it is wrong."""

import json
import re
from urllib.parse import urlsplit

from starlette.requests import Request

from sandbox.appwrite.errors import AppwriteError, invalid, missing
from sandbox.appwrite.models import Json

_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,35}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
LOCAL = ("localhost", "127.0.0.1", "::1")


async def body(request: Request) -> Json:
    """Return the JSON object of the body; an empty one when there is no body."""
    raw = await request.body()
    if not raw:
        return {}
    try:
        found = json.loads(raw)
    except ValueError as exc:
        raise AppwriteError("general_argument_invalid", "The body is not JSON.") from exc
    if isinstance(found, dict):
        return found
    if found == []:
        return {}  # PHP clients write an empty object so.
    raise AppwriteError("general_argument_invalid", "The body is not an object.")


def text(params: Json, name: str) -> str:
    """Return a text that must be there."""
    value = params.get(name)
    if value is None or value == "":
        raise missing(name)
    if not isinstance(value, str):
        raise invalid(name, "Value must be a valid string")
    return value


def user_id(params: Json) -> str:
    """Return ``userId``: an id of 1 to 36 characters, or ``unique()``."""
    value = text(params, "userId")
    if value != "unique()" and not _ID.fullmatch(value):
        raise invalid(
            "userId",
            "UID must contain at most 36 chars. Valid chars are a-z, A-Z, 0-9, period, hyphen, and"
            " underscore. Can't start with a special char",
        )
    return value


def email(params: Json) -> str:
    """Return ``email``."""
    value = text(params, "email")
    if not _EMAIL.fullmatch(value):
        raise invalid("email", "Value must be a valid email address")
    return value


def link_url(params: Json, platforms: tuple[str, ...]) -> str:
    """Return ``url``, whose host must be known; empty when there is none."""
    value = params.get("url")
    if value is None or value == "":
        return ""
    parts = urlsplit(str(value))
    if parts.scheme not in {"http", "https"} or parts.hostname not in (*LOCAL, *platforms):
        raise invalid(
            "url",
            "Invalid URI. Register your new client (host) as a new Web platform on your project"
            " console dashboard",
        )
    return str(value)
