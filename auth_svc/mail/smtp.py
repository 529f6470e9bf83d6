"""The SMTP submission server, and the message format."""

import ipaddress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from email_validator import EmailNotValidError, validate_email

from auth_svc.ports import Clock, Mail

StartTls = Literal["required", "opportunistic", "never"]


@dataclass(frozen=True)
class SmtpServer:
    """
    The submission server.

    ``starttls`` applies to connections that start in plain text: ``opportunistic`` encrypts if the
    server offers it, with any certificate, and protects only against passive attackers.
    """

    host: str
    port: int
    tls: bool
    starttls: StartTls
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    @classmethod
    def parse(
        cls,
        url: str,
        password: str | None = None,
        *,
        strict: bool = True,
        ca_file: Path | None = None,
    ) -> "SmtpServer":
        """
        Read ``smtp://[USER@]HOST[:PORT]`` or ``smtps://…``.

        Args:
            url: The URL.
            password: The password of USER.
            strict: Require STARTTLS of a remote ``smtp`` server. A login always requires it.
            ca_file: CA certificates to verify the server; default: those of the system. If given,
                STARTTLS is required of every ``smtp`` server, also on this machine.

        Raises:
            ValueError: *url* is invalid.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
            raise ValueError("use smtp://HOST:PORT or smtps://HOST:PORT")
        if parts.password is not None:
            raise ValueError("put the password into AMARRE_AUTH_SMTP_PASSWORD_FILE")
        tls = parts.scheme == "smtps"
        starttls: StartTls = "required"
        if tls or (_is_loopback(parts.hostname) and ca_file is None):
            starttls = "never"
        elif not strict and not parts.username and ca_file is None:
            starttls = "opportunistic"
        return cls(
            host=parts.hostname,
            port=parts.port or (465 if tls else 587),
            tls=tls,
            starttls=starttls,
            username=unquote(parts.username) if parts.username else None,
            password=password,
            ca_file=ca_file,
        )


def compose(mail: Mail, sender: str, clock: Clock) -> EmailMessage:
    """Return *mail* as a message with both bodies."""
    to = _deliverable(mail.to)
    message = EmailMessage(policy=SMTP if to.isascii() else SMTPUTF8)
    message["From"] = sender
    message["To"] = to
    message["Subject"] = mail.subject
    message["Date"] = format_datetime(clock())
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2].rstrip(">"))
    # Suppresses automatic replies (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    return message


def _deliverable(address: str) -> str:
    """Return *address* with its domain in ASCII, which every server accepts (RFC 5890).

    Not with Python's own codec, which implements IDNA 2003: ``straße.example`` would become
    ``strasse.example``, which may belong to somebody else.
    """
    try:
        found = validate_email(address, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError:
        return address
    return f"{address.rpartition('@')[0]}@{found.ascii_domain}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
