"""Mails in the background."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP

from auth_svc.mail.queue import MailQueue
from auth_svc.mail.sign_in_mail import sign_in_mail
from auth_svc.mail.smtp import SmtpServer, compose
from auth_svc.ports import Mail
from mesh.chassis.errors import UnavailableError
from mesh.chassis.telemetry import tracing
from mesh.chassis.testing import FakeClock, free_port
from tests.mesh.chassis.telemetry import recorded

SENDER = "AMARRE <no-reply@example.org>"
URL = "http://localhost:3000/login?userId=ab&secret=cd"
DEADLINE_SECONDS = 5.0


class Sink:
    """A mail server that answers from a list, then takes everything."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.mails: list[EmailMessage] = []
        self.attempts = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Take one mail, or answer as told."""
        self.attempts += 1
        if self.answers:
            return self.answers.pop(0)
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 ok"


@asynccontextmanager
async def listening(sink: Sink) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    port = free_port()

    def session() -> SMTP:
        return SMTP(sink, hostname="sink", loop=loop, enable_SMTPUTF8=True)

    async with await loop.create_server(session, "127.0.0.1", port):
        yield port


def letter(clock: FakeClock, to: str = "ada@example.org") -> Mail:
    lifetime = timedelta(minutes=10)
    return sign_in_mail(to, URL, language="fr", lifetime=lifetime, expires_at=clock() + lifetime)


def queue(port: int, clock: FakeClock, **options: Any) -> MailQueue:
    server = SmtpServer.parse(f"smtp://127.0.0.1:{port}")
    return MailQueue(server, SENDER, clock, **{"pauses": (0.01, 0.01), **options})


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


class TestPostman:
    @pytest.mark.parametrize("to", ["ada@example.org", "o'brien+x@example.org", "zoé@example.org"])
    async def test_mail_arrives(self, clock: FakeClock, to: str) -> None:
        """A letter arrives with sender, recipient, subject and both bodies."""
        sink = Sink()
        async with listening(sink) as port, queue(port, clock) as mailer:
            mailer.post(letter(clock, to))
            await until(lambda: bool(sink.mails))

        (mail,) = sink.mails
        assert (SENDER, to) == (mail["From"], mail["To"])
        assert "Votre lien de connexion à AMARRE" == mail["Subject"]
        text, html = mail.get_body(("plain",)), mail.get_body(("html",))
        assert text is not None
        assert html is not None
        assert URL in text.get_content()
        assert URL.replace("&", "&amp;") in html.get_content()

    async def test_taken_letters_are_sent_before_the_end(self, clock: FakeClock) -> None:
        """Stopping waits for the letters that were taken."""
        sink = Sink()
        async with listening(sink) as port:
            async with queue(port, clock) as mailer:
                for _ in range(20):
                    mailer.post(letter(clock))

            assert 20 == len(sink.mails)

    async def test_tried_again(self, clock: FakeClock) -> None:
        """A mail server that cannot take a mail now is asked again."""
        sink = Sink("451 later", "421 later")
        async with listening(sink) as port, queue(port, clock) as mailer:
            mailer.post(letter(clock))
            await until(lambda: bool(sink.mails))

        assert 3 == sink.attempts

    async def test_in_the_trace(self, clock: FakeClock) -> None:
        """Every attempt is a span of the request that wrote the letter; without one there is
        none.
        """
        trace = "0af7651916cd43dd8448eb211c80319c"
        sink = Sink("451 later")
        with recorded() as spans:
            async with listening(sink) as port, queue(port, clock) as mailer:
                tracing.resume(f"00-{trace}-b7ad6b7169203331-01")
                mailer.post(letter(clock))
                tracing.resume("")
                await until(lambda: bool(sink.mails))
                mailer.post(letter(clock))

        assert 2 == len(sink.mails)
        failed, sent = spans
        for span in (failed, sent):
            assert ("send mail", "CLIENT") == (span.name, span.kind.name)
            context = span.get_span_context()
            assert context is not None
            assert trace == f"{context.trace_id:032x}"
            assert {"peer.service": "outbox"}.items() <= dict(span.attributes or {}).items()
        assert (False, True) == (failed.status.is_ok, sent.status.is_ok)

    async def test_refused(self, clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
        """A mail that is refused for good is not tried again, and its address is in no log."""
        sink = Sink("550 ada@example.org is unknown")
        async with listening(sink) as port, queue(port, clock) as mailer:
            mailer.post(letter(clock))
            await until(lambda: sink.attempts == 1)
        assert (1, []) == (sink.attempts, sink.mails)
        written = "".join(capsys.readouterr())
        assert "mail not taken" in written
        assert "ada@" not in written

    async def test_server_away(self, clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
        """While the mail server is away letters are tried a few times and then given up, loudly."""
        async with queue(free_port(), clock) as mailer:
            mailer.post(letter(clock))

        assert "mail given up" in "".join(capsys.readouterr())

    async def test_late(self, clock: FakeClock) -> None:
        """A letter whose link has ended is not sent any more."""
        sink = Sink()
        old = letter(clock)
        clock.advance(timedelta(minutes=10))
        async with listening(sink) as port, queue(port, clock) as mailer:
            mailer.post(old)

        assert 0 == sink.attempts

    async def test_full(self, clock: FakeClock) -> None:
        """As many letters wait as may; the next one is refused."""
        mailer = queue(free_port(), clock, capacity=2)
        mailer.post(letter(clock))
        mailer.post(letter(clock))

        with pytest.raises(UnavailableError):
            mailer.post(letter(clock))


@pytest.mark.parametrize("to", ["a@example.org\nBcc: b@evil.com", "a@example.org\r\nX: y"])
def test_headers_cannot_be_added(clock: FakeClock, to: str) -> None:
    """A line break in an address cannot become a header, even if it came so far."""
    with pytest.raises(ValueError, match=r"(?i)linefeed|newline|return"):
        compose(letter(clock, to), SENDER, clock)


class TestServer:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("smtp://127.0.0.1:3012", SmtpServer("127.0.0.1", 3012, tls=False, starttls=False)),
            ("smtp://localhost:25", SmtpServer("localhost", 25, tls=False, starttls=False)),
            (
                "smtp://mail.example.org",
                SmtpServer("mail.example.org", 587, tls=False, starttls=True),
            ),
            (
                "smtps://mail.example.org",
                SmtpServer("mail.example.org", 465, tls=True, starttls=False),
            ),
            (
                "smtps://u%40x@mail.example.org",
                SmtpServer("mail.example.org", 465, tls=True, starttls=False, username="u@x"),
            ),
        ],
    )
    def test_parse(self, url: str, expected: SmtpServer) -> None:
        """Only mail to this very machine goes without TLS."""
        assert expected == SmtpServer.parse(url)

    @pytest.mark.parametrize("url", ["", "http://x", "smtp://", "smtp://u:p@x", "smtp://x:99999"])
    def test_refused(self, url: str) -> None:
        """Other URLs, and passwords in URLs, are refused."""
        with pytest.raises(ValueError):
            SmtpServer.parse(url)
