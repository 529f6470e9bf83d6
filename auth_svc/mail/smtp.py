"""The SMTP server that accepts mail, and the form in which a mail is sent to it."""

import ipaddress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime, make_msgid
from urllib.parse import unquote, urlsplit

from auth_svc.ports import Clock, Mail


@dataclass(frozen=True)
class SmtpServer:
    """Where mails are handed in."""

    host: str
    port: int
    tls: bool
    starttls: bool
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str, password: str | None = None) -> "SmtpServer":
        """Read ``smtp://[USER@]HOST[:PORT]`` or ``smtps://…``.

        Over ``smtp`` STARTTLS is a must, except to this very machine.

        Raises:
            ValueError: It is no such URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
            raise ValueError("use smtp://HOST:PORT or smtps://HOST:PORT")
        if parts.password is not None:
            raise ValueError("put the password into AMARRE_AUTH_SMTP_PASSWORD_FILE")
        tls = parts.scheme == "smtps"
        return cls(
            host=parts.hostname,
            port=parts.port or (465 if tls else 587),
            tls=tls,
            starttls=not tls and not _is_loopback(parts.hostname),
            username=unquote(parts.username) if parts.username else None,
            password=password,
        )


def compose(letter: Mail, sender: str, clock: Clock) -> EmailMessage:
    """Return *letter* as a mail with both bodies."""
    mail = EmailMessage(policy=SMTP if letter.to.isascii() else SMTPUTF8)
    mail["From"] = sender
    mail["To"] = letter.to
    mail["Subject"] = letter.subject
    mail["Date"] = format_datetime(clock())
    mail["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2].rstrip(">"))
    # Asks out-of-office robots not to answer.
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(letter.text)
    mail.add_alternative(letter.html, subtype="html")
    return mail


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
