"""Sends magic-link mails by SMTP, after the response was sent."""

import asyncio
import html
from email.message import EmailMessage
from email.utils import make_msgid

import aiosmtplib

SEND_SECONDS = 5.0


class Mailer:
    """Sends links to an SMTP server; without an address, only stores the last link."""

    def __init__(self, smtp: tuple[str, int] | None) -> None:
        self._smtp = smtp
        self._sending: set[asyncio.Task[None]] = set()
        self.last_link = ""

    def send(self, to: str, link: str, phrase: str) -> None:
        """Queue a mail."""
        self.last_link = link
        if self._smtp is None:
            return
        task = asyncio.get_running_loop().create_task(self._send(_compose(to, link, phrase)))
        self._sending.add(task)
        task.add_done_callback(self._sent)

    async def _send(self, mail: EmailMessage) -> None:
        if self._smtp is not None:
            host, port = self._smtp
            await aiosmtplib.send(mail, hostname=host, port=port, timeout=SEND_SECONDS)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        # The caller already has a response, so a lost mail cannot be reported.
        task.cancelled() or task.exception()


def _compose(to: str, link: str, phrase: str) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "Appwrite <no-reply@appwrite.example>"
    mail["To"] = to
    mail["Subject"] = "AMARRE Login"
    mail["Message-ID"] = make_msgid(domain="appwrite.example")
    note = f"\nSecurity phrase: {phrase}\n" if phrase else ""
    mail.set_content(f"Sign in with this link:\n\n{link}\n\nIt expires in 1 hour.\n{note}")
    quoted = html.escape(link)
    mail.add_alternative(
        f'<p><a href="{quoted}">Sign in</a></p><p>{quoted}</p><p>It expires in 1 hour.</p>'
        f"<p>{html.escape(note)}</p>",
        subtype="html",
    )
    return mail
