"""AuthSettings: the settings of Auth, from the environment."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_settings import NoDecode

from auth_svc.mail.smtp import SmtpServer
from auth_svc.ports import LONGEST_SESSION
from auth_svc.sessions.second_factor import RequiredFor
from auth_svc.sign_in.addresses import AllowedDomains
from auth_svc.sign_in.rate_limits import Limit, LinkLimits
from mesh.chassis.config import MeshSettings, OptionalWebUrl, StoreUrl, WebUrl, web_url


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Comma-separated values."""


class AuthSettings(MeshSettings):
    """Settings of Auth; variables start with ``AMARRE_``."""

    auth_database: StoreUrl = Field(repr=False)
    """``sqlite+aiosqlite:///FILE`` or ``postgresql+asyncpg://USER:PASSWORD@HOST/NAME``."""
    auth_signing_key_file: Path
    """PEM with the Ed25519 keys of user tokens, the signing one first; created if missing."""
    auth_key_set_listen: str
    """Address of the key set endpoint: ``unix:/PATH`` or ``HOST:PORT``."""
    auth_smtp_url: str
    """
    Mail submission server: ``smtp://[USER@]HOST:PORT`` or ``smtps://…``. ``smtp`` to a remote host
    requires STARTTLS; in development, STARTTLS is used if the server offers it.
    """
    auth_smtp_password_file: Path | None = None
    """File with the password for ``AMARRE_AUTH_SMTP_URL``; none means no log-in."""
    auth_smtp_ca_file: Path | None = None
    """
    CA certificates that verify the mail server, PEM; default: those of the system. If set, every
    ``smtp`` server must offer STARTTLS with a certificate of these.
    """
    auth_smtputf8: Literal["on", "off"] = "off"
    """``on`` accepts mailboxes beyond ASCII (RFC 6531); the mail server must offer SMTPUTF8."""
    auth_mail_from: str = "AMARRE <no-reply@amarre.local>"
    """The sender of mails."""
    auth_link_url: WebUrl
    """URL of the page that mailed links open, ``https://HOST/login``."""
    auth_link_lifetime: timedelta = Field(
        default=timedelta(minutes=10), gt=timedelta(0), le=timedelta(minutes=10)
    )
    """How long a magic link works; at most 10 minutes."""
    auth_session_lifetime: timedelta = Field(
        default=timedelta(days=7), gt=timedelta(0), le=LONGEST_SESSION
    )
    """The absolute lifetime of a session; at most 30 days."""
    auth_session_idle: timedelta = Field(
        default=timedelta(hours=12), gt=timedelta(0), le=timedelta(days=7)
    )
    """The idle timeout of a session; at most 7 days."""
    auth_session_cache: timedelta = Field(
        default=timedelta(seconds=30), ge=timedelta(0), le=timedelta(minutes=1)
    )
    """
    How long a verified session is cached; at most 1 minute. Revocations reach every replica within
    a second, except those made in Appwrite's own console, for which the maximum is 2 s.
    """
    auth_passkey_origins: Listed = ()
    """Origins of the pages that may use passkeys, ``https://HOST[:PORT]``, comma-separated; all on
    one host, to which passkeys are bound. Empty: the host of the link URL.
    """
    auth_operators: Listed = ()
    """Email addresses of operators, comma-separated."""
    auth_second_factor: RequiredFor = "chosen"
    """Who needs a passkey in addition to a mailed link: users who opted in (``chosen``), also
    ``operators``, or ``everybody``.
    """
    auth_console_url: OptionalWebUrl = ""
    """URL of the console for operators, ``http://HOST[:PORT]``; empty for none."""
    auth_console_token_file: Path | None = None
    """File with the console's token, which can create one-time links."""
    auth_provider: Literal["embedded", "appwrite"] = "embedded"
    """The identity provider, which stores users and sessions."""
    auth_appwrite_endpoint: OptionalWebUrl = ""
    """Appwrite's API, ``https://HOST/v1``; with the provider ``appwrite``."""
    auth_appwrite_project: str = ""
    """The id of the Appwrite project."""
    auth_appwrite_key_file: Path | None = None
    """File with an API key that has users.read, users.write and sessions.write."""
    allowed_email_domains: Listed = ("example.org",)
    """Domains whose addresses may sign in, comma-separated; exact matches."""
    auth_links_per_address: int = Field(default=5, gt=0)
    """Links per address, refilled over 15 minutes."""
    auth_links_per_client: int = Field(default=60, gt=0)
    """Links per client, refilled over 10 minutes."""
    auth_links_overall: int = Field(default=600, gt=0)
    """
    Links for all clients together, refilled over 10 minutes; half as many are reserved for clients
    that requested few.
    """
    auth_log_ins_per_client: int = Field(default=200, gt=0)
    """Attempts of one client to log in, refilled over 10 minutes."""
    rate_limits: Literal["on", "off"] = "on"
    """``off`` disables the rate limits of sign-in; not in production."""

    @field_validator("allowed_email_domains")
    @classmethod
    def _domains_are_domains(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one domain, for instance example.org")
        AllowedDomains(value)
        return value

    @field_validator("auth_smtp_url")
    @classmethod
    def _smtp_is_smtp(cls, value: str) -> str:
        SmtpServer.parse(value)
        return value

    @field_validator("auth_link_url")
    @classmethod
    def _link_is_web(cls, value: str) -> str:
        if "?" in value or "#" in value:
            raise ValueError("use a URL with no query")
        return value

    @field_validator("auth_passkey_origins")
    @classmethod
    def _origins_share_a_host(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len({urlsplit(web_url(origin)).hostname for origin in value}) > 1:
            raise ValueError("use one host; a passkey is bound to it")
        for origin in value:
            if not re.fullmatch(r"https://[^/?#@\s]+|http://localhost(:[0-9]+)?", origin):
                raise ValueError(f"{origin!r} is not https://HOST[:PORT]")
        return value

    def link_limits(self) -> LinkLimits:
        """Return the limits of sign-in links, with the windows that the settings describe."""
        window, overall = timedelta(minutes=10), self.auth_links_overall
        per_address, per_client = self.auth_links_per_address, self.auth_links_per_client
        return LinkLimits(
            per_address=Limit("links per address", per_address, timedelta(minutes=15)),
            per_client=Limit("links per client", per_client, window),
            overall=Limit("links overall", overall, window),
            reserved=Limit("links reserved", max(1, overall // 2), window),
            reserved_per_client=Limit("links reserved per client", 3, window),
            log_ins=Limit("log-ins per client", self.auth_log_ins_per_client, window),
        )

    def passkey_origins(self) -> tuple[str, ...]:
        """Return the origins that may use passkeys; browsers accept localhost but not 127.0.0.1."""
        parts = urlsplit(self.auth_link_url)
        host = "localhost" if parts.hostname == "127.0.0.1" else parts.hostname
        port = f":{parts.port}" if parts.port else ""
        return self.auth_passkey_origins or (f"{parts.scheme}://{host}{port}",)

    @field_validator("auth_operators")
    @classmethod
    def _addresses_are_lower_case(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(address.lower() for address in value)

    @model_validator(mode="after")
    def _appwrite_is_complete(self) -> "AuthSettings":
        if self.auth_provider == "appwrite":
            settings = {
                "ENDPOINT": self.auth_appwrite_endpoint,
                "PROJECT": self.auth_appwrite_project,
                "KEY_FILE": self.auth_appwrite_key_file,
            }
            missing = [
                f"AMARRE_AUTH_APPWRITE_{name}" for name, good in settings.items() if not good
            ]
            if missing:
                raise ValueError(f"AMARRE_AUTH_PROVIDER=appwrite needs {', '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _console_is_complete(self) -> "AuthSettings":
        if bool(self.auth_console_url) != (self.auth_console_token_file is not None):
            raise ValueError(
                "set both AMARRE_AUTH_CONSOLE_URL and AMARRE_AUTH_CONSOLE_TOKEN_FILE, or neither"
            )
        return self

    @model_validator(mode="after")
    def _production_is_strict(self) -> "AuthSettings":
        if self.env == "production" and self.rate_limits == "off":
            raise ValueError("AMARRE_RATE_LIMITS=off is not allowed with AMARRE_ENV=production")
        return self
