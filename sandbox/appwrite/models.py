"""JSON representations of users, tokens and sessions."""

import re
from datetime import datetime

from sandbox.appwrite.state import Session, Token, User

Json = dict[str, object]

_CLIENTS = (
    ("FF", "Firefox", re.compile(r"Firefox/([\d.]+)")),
    ("CH", "Chrome", re.compile(r"Chrome/([\d.]+)")),
    ("SF", "Safari", re.compile(r"Version/([\d.]+).*Safari")),
)
_SYSTEMS = (
    ("WIN", "Windows", re.compile(r"Windows NT ([\d.]+)")),
    ("MAC", "Mac", re.compile(r"Mac OS X ([\d_.]+)")),
    ("LIN", "GNU/Linux", re.compile(r"Linux()")),
)


def moment(time: datetime | None) -> str:
    """Return *moment* with milliseconds and offset; empty for None."""
    return "" if time is None else time.isoformat(timespec="milliseconds")


def user(account: User) -> Json:
    """Return the user as ``GET /account`` represents it."""
    return {
        "$id": account.id,
        "$createdAt": moment(account.created_at),
        "$updatedAt": moment(account.updated_at or account.created_at),
        "name": account.name,
        "registration": moment(account.created_at),
        "status": account.enabled,
        "labels": account.labels,
        "passwordUpdate": moment(account.password_at),
        "email": account.email,
        "phone": account.phone,
        "emailVerification": account.verified,
        "emailCanonical": account.email,
        "emailIsFree": False,
        "emailIsDisposable": False,
        "emailIsCorporate": True,
        "emailIsCanonical": True,
        "phoneVerification": account.phone_verified,
        "mfa": account.mfa,
        "prefs": account.prefs,
        "targets": targets(account),
        "accessedAt": moment(account.accessed_at),
    }


def targets(account: User) -> list[Json]:
    """Return the user's messaging target: their email address."""
    if not account.email:
        return []
    return [
        {
            "$id": account.id,
            "$createdAt": moment(account.created_at),
            "$updatedAt": moment(account.created_at),
            "name": "",
            "userId": account.id,
            "providerId": None,
            "providerType": "email",
            "identifier": account.email,
            "expired": False,
        }
    ]


def factors(account: User) -> Json:
    """Return which second factors the user can use."""
    return {
        "totp": False,
        "phone": account.phone_verified,
        "email": account.verified,
        "recoveryCode": False,
    }


def full_user(account: User) -> Json:
    """Return the user as ``GET /users/{id}`` represents it."""
    return {**user(account), "password": "", "hash": "argon2", "hashOptions": {}}


def token(made: Token, *, secret: str, phrase: str) -> Json:
    """Return a token; *secret* is empty if the caller may not see it."""
    return {
        "$id": made.id,
        "$createdAt": moment(made.created_at),
        "userId": made.user_id,
        "secret": secret,
        "expire": moment(made.expires_at),
        "phrase": phrase,
    }


def session(opened: Session, *, current: bool, secret: str = "") -> Json:
    """Return a session; *secret* is empty if the caller may not see it."""
    client_code, client, client_version = _first(_CLIENTS, opened.user_agent)
    os_code, system, os_version = _first(_SYSTEMS, opened.user_agent)
    return {
        "$id": opened.id,
        "$createdAt": moment(opened.created_at),
        "$updatedAt": moment(opened.created_at),
        "userId": opened.user_id,
        "expire": moment(opened.expires_at),
        "provider": opened.provider,
        "providerUid": "",
        "providerAccessToken": "",
        "providerAccessTokenExpiry": "",
        "providerRefreshToken": "",
        "ip": opened.ip,
        "osCode": os_code,
        "osName": system,
        "osVersion": os_version,
        "clientType": "browser" if client else "",
        "clientCode": client_code,
        "clientName": client,
        "clientVersion": client_version,
        "clientEngine": "",
        "clientEngineVersion": "",
        "deviceName": "desktop" if client else "",
        "deviceBrand": "",
        "deviceModel": "",
        "countryCode": "--",
        "countryName": "Unknown",
        "current": current,
        "factors": ["email" if opened.provider == "magic-url" else opened.provider],
        "secret": secret,
        "mfaUpdatedAt": "",
    }


def _first(table: tuple[tuple[str, str, re.Pattern[str]], ...], text: str) -> tuple[str, str, str]:
    for code, name, pattern in table:
        match = pattern.search(text)
        if match:
            return code, name, match.group(1)
    return "", "", ""
