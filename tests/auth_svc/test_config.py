"""Validation of Auth's settings."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from auth_svc.config import AuthSettings


def settings(**values: Any) -> AuthSettings:
    least = {
        "auth_database": "sqlite+aiosqlite:///auth.sqlite",
        "auth_signing_key_file": Path("key.pem"),
        "auth_key_set_listen": "127.0.0.1:3072",
        "auth_smtp_url": "smtp://127.0.0.1:3012",
        "auth_link_url": "http://localhost:3000/login",
    }
    return AuthSettings(**{**least, **values})


def test_lists_come_with_commas() -> None:
    """Domains and operators are comma-separated; operators are compared in lower case."""
    found = settings(allowed_email_domains="a.org, B.org", auth_operators="Ada@A.org,")

    assert ("a.org", "B.org") == found.allowed_email_domains
    assert ("ada@a.org",) == found.auth_operators


def test_example_org_by_default() -> None:
    """By default, only example.org may sign in, with limits."""
    assert (("example.org",), "on") == (settings().allowed_email_domains, settings().rate_limits)


@pytest.mark.parametrize(
    ("link", "origins", "expected"),
    [
        ("http://127.0.0.1:3000/login", "", ("http://localhost:3000",)),
        ("https://amarre.example.org/login", "", ("https://amarre.example.org",)),
        (
            "http://127.0.0.1:3000/login",
            "http://localhost:3000, https://localhost:3443",
            ("http://localhost:3000", "https://localhost:3443"),
        ),
    ],
)
def test_passkey_origins(link: str, origins: str, expected: tuple[str, ...]) -> None:
    """Passkeys are for the origin of the links, or the configured ones; never an IP address."""
    found = settings(auth_link_url=link, auth_passkey_origins=origins)

    assert expected == found.passkey_origins()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate_limits": "off", "env": "production"}, "AMARRE_RATE_LIMITS=off is not allowed"),
        ({"allowed_email_domains": ""}, "at least one domain"),
        ({"allowed_email_domains": "exa mple.org"}, "is not a domain"),
        ({"auth_smtp_url": "http://x"}, "use smtp://"),
        ({"auth_smtp_url": "smtp://u:p@x"}, "AMARRE_AUTH_SMTP_PASSWORD_FILE"),
        ({"auth_link_url": "localhost:3000/login"}, "use http://"),
        ({"auth_link_url": "http://localhost/login?x=1"}, "no query"),
        ({"auth_link_url": "http://h:abc/login"}, "port"),
        ({"auth_database": "postgresql+asyncpg://u:p@h:abc/db"}, "port"),
        ({"auth_database": "postgresql+asyncpg://u:p@h:0/db"}, "port"),
        ({"auth_database": "nonsense"}, "is not a URL"),
        ({"auth_appwrite_endpoint": "http://h:70000/v1"}, "port"),
        ({"auth_console_url": "http://h:abc"}, "port"),
        ({"auth_passkey_origins": "https://a.org:abc"}, "port"),
        ({"auth_passkey_origins": "http://a.org"}, "is not https"),
        ({"auth_passkey_origins": "https://a.org,https://b.org"}, "use one host"),
        ({"auth_link_lifetime": "PT11M"}, "less than or equal"),
        ({"auth_session_cache": "PT61S"}, "less than or equal"),
    ],
)
def test_refused(values: dict[str, Any], message: str) -> None:
    """An invalid setting is rejected with the valid values."""
    with pytest.raises(ValidationError, match=message):
        settings(**values)
