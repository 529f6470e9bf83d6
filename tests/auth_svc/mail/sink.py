"""A mail server that keeps its mail, and a queue that sends to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP

from auth_svc.mail.queue import MailQueue
from auth_svc.mail.sign_in_mail import sign_in_mail
from auth_svc.mail.smtp import SmtpServer, StartTls
from auth_svc.ports import Mail
from mesh.chassis.testing import FakeClock, free_port

SENDER = "AMARRE <no-reply@example.org>"
URL = "http://localhost:3000/login?userId=ab&secret=cd"


class Sink:
    """A mail server: ``answers`` to DATA in order, ``per_recipient`` ones to RCPT always."""

    def __init__(self, *answers: str, per_recipient: Callable[[str], str] | None = None) -> None:
        self.answers = list(answers)
        self.per_recipient = per_recipient
        self.mails: list[EmailMessage] = []
        self.attempts = 0
        self.encrypted: list[bool] = []
        self.hanging = asyncio.Event()
        """Set once a recipient of ``hang.example.org`` waits for its answer, for ever."""

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        """Accept the recipient, or respond as configured."""
        if address.endswith("@hang.example.org"):
            self.hanging.set()
            await asyncio.Event().wait()
        answer = self.per_recipient(address) if self.per_recipient else "250 ok"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Accept one mail, or respond as configured."""
        self.attempts += 1
        if self.answers:
            return self.answers.pop(0)
        self.encrypted.append(session.ssl is not None)
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 ok"

    @property
    def recipients(self) -> set[str]:
        """The recipients of accepted mail."""
        return {str(mail["To"]) for mail in self.mails}


@asynccontextmanager
async def listening(sink: Sink, **options: Any) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    port = free_port()

    def session() -> SMTP:
        return SMTP(sink, hostname="sink", loop=loop, **{"enable_SMTPUTF8": True, **options})

    server = await loop.create_server(session, "127.0.0.1", port)
    try:
        yield port
    finally:
        server.close()


def mail(clock: FakeClock, to: str = "ada@example.org") -> Mail:
    lifetime = timedelta(minutes=10)
    return sign_in_mail(to, URL, language="fr", lifetime=lifetime, expires_at=clock() + lifetime)


def queue(
    port: int, clock: FakeClock, *, starttls: StartTls | None = None, **options: Any
) -> MailQueue:
    server = SmtpServer.parse(f"smtp://127.0.0.1:{port}")
    if starttls is not None:
        server = replace(server, starttls=starttls)
    return MailQueue(server, SENDER, clock, **{"pauses": (0.01, 0.01), **options})
