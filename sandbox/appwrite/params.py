"""Request parameters and their validation, with Appwrite's error messages."""

import json
import re
from typing import NoReturn
from urllib.parse import urlsplit

from starlette.requests import Request

from sandbox.appwrite.errors import AppwriteError, invalid, missing
from sandbox.appwrite.models import Json

_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,35}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")
LOCAL = ("localhost", "127.0.0.1", "::1")


async def body(request: Request) -> Json:
    """Return the body's JSON object; empty if the body is."""
    raw = await request.body()
    if not raw:
        return {}
    try:
        found = json.loads(raw, parse_constant=_not_json)
        # PHP's json_decode rejects lone surrogates and numbers beyond a float, Python's does not.
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as exc:
        raise AppwriteError("general_argument_invalid", "The body is not valid JSON.") from exc
    if isinstance(found, dict):
        return found
    if found == []:
        return {}  # PHP clients encode an empty object as an empty array.
    raise AppwriteError("general_argument_invalid", "The body is not a JSON object.")


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def text(params: Json, name: str) -> str:
    """Return a required string."""
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


def phone(params: Json, name: str = "phone") -> str:
    """Return a telephone number, in the form of E.164."""
    value = text(params, name)
    if not _PHONE.fullmatch(value):
        raise invalid(name, "Phone number must start with a '+' can have a maximum of 15 digits")
    return value


def name(params: Json) -> str:
    """Return ``name``; empty if absent."""
    value = params.get("name") or ""
    if not isinstance(value, str) or len(value) > 128:
        raise invalid("name", "Value must be a valid string and at most 128 chars long")
    return value


def password(params: Json) -> str:
    """Return ``password``: empty, or 8 to 256 characters."""
    value = params.get("password")
    if value is None:
        raise missing("password")
    if not isinstance(value, str) or (value and not 8 <= len(value) <= 256):
        raise invalid(
            "password",
            "Password must be between 8 and 256 characters long",
        )
    return value


def prefs(params: Json) -> Json:
    """Return ``prefs``, an object of at most 64 kB."""
    value = params.get("prefs")
    if value is None:
        raise missing("prefs")
    if value == []:
        return {}  # PHP clients encode an empty object as an empty array.
    if not isinstance(value, dict) or len(json.dumps(value)) > 65_535:
        raise invalid("prefs", "Value must be a valid object")
    return value


def boolean(params: Json, name: str) -> bool:
    """Return a required boolean."""
    value = params.get(name)
    if value is None:
        raise missing(name)
    if not isinstance(value, bool):
        raise invalid(name, "Value must be a valid boolean")
    return value


def number(params: Json, name: str, default: int, least: int, most: int) -> int:
    """Return an integer between *least* and *most*; *default* if absent."""
    value = params.get(name)
    if value is None:
        return default
    if type(value) is not int or not least <= value <= most:
        raise invalid(name, f"Value must be a valid range between {least:,} and {most:,}")
    return value


def link_url(params: Json, platforms: tuple[str, ...]) -> str:
    """Return ``url``, whose host must be a registered platform; empty if absent."""
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
