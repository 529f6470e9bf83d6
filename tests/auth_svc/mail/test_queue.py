"""Sending mail in the background."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import pytest
from prometheus_client import REGISTRY

from auth_svc.mail import queue as module
from auth_svc.mail.queue import CONNECTIONS, MailQueue
from auth_svc.mail.smtp import compose
from auth_svc.ports import Mail
from mesh.chassis.errors import UnavailableError
from mesh.chassis.telemetry import tracing
from mesh.chassis.testing import FakeClock, free_port
from tests.auth_svc.mail.sink import SENDER, URL, Sink, listening, mail, queue
from tests.mesh.chassis.telemetry import recorded

DEADLINE_SECONDS = 5.0


def failures() -> float:
    """Return the number of failed mails so far."""
    return REGISTRY.get_sample_value("amarre_auth_mails_total", {"outcome": "failed"}) or 0


async def stopped(mailer: MailQueue) -> None:
    """Stop *mailer* without waiting for its mail."""
    tasks = list(mailer._tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


class TestMailQueue:
    @pytest.mark.parametrize("to", ["ada@example.org", "o'brien+x@example.org", "zoé@example.org"])
    async def test_mail_arrives(self, clock: FakeClock, to: str) -> None:
        """A mail arrives with sender, recipient, subject and both bodies."""
        sink = Sink()
        async with listening(sink) as port, queue(port, clock) as mailer:
            mailer.enqueue(mail(clock, to))
            await until(lambda: bool(sink.mails))

        (found,) = sink.mails
        assert (SENDER, to) == (found["From"], found["To"])
        assert "Votre lien de connexion à AMARRE" == found["Subject"]
        text, html = found.get_body(("plain",)), found.get_body(("html",))
        assert text is not None
        assert html is not None
        assert URL in text.get_content()
        assert URL.replace("&", "&amp;") in html.get_content()

    async def test_accepted_mail_is_sent_before_the_end(self, clock: FakeClock) -> None:
        """Stopping waits for accepted mail."""
        sink = Sink()
        async with listening(sink) as port:
            async with queue(port, clock) as mailer:
                for number in range(20):
                    mailer.enqueue(mail(clock, f"ada{number}@example.org"))

            assert 20 == len(sink.mails)

    async def test_tried_again(self, clock: FakeClock) -> None:
        """After a temporary failure of the mail server, the mail is retried."""
        sink = Sink("451 later", "421 later")
        async with listening(sink) as port, queue(port, clock) as mailer:
            mailer.enqueue(mail(clock))
            await until(lambda: bool(sink.mails))

        assert 3 == sink.attempts

    async def test_in_the_trace(self, clock: FakeClock) -> None:
        """Each attempt creates a span in the trace of its request, if that is traced."""
        trace = "0af7651916cd43dd8448eb211c80319c"
        sink = Sink("451 later")
        with recorded() as spans:
            async with listening(sink) as port, queue(port, clock) as mailer:
                tracing.resume(f"00-{trace}-b7ad6b7169203331-01")
                mailer.enqueue(mail(clock))
                tracing.resume("")
                await until(lambda: bool(sink.mails))
                mailer.enqueue(mail(clock))

        assert 2 == len(sink.mails)
        failed, sent = spans
        for span in (failed, sent):
            assert ("send mail", "CLIENT") == (span.name, span.kind.name)
            context = span.get_span_context()
            assert context is not None
            assert trace == f"{context.trace_id:032x}"
            assert {
                "service.peer.name": "outbox",
                "peer.service": "outbox",
                "server.port": port,
            }.items() <= dict(span.attributes or {}).items()
        assert (False, True) == (failed.status.is_ok, sent.status.is_ok)

    async def test_refused(self, clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
        """A permanently rejected mail is not retried, and its address is not logged."""
        sink = Sink("550 ada@example.org is unknown")
        async with listening(sink) as port, queue(port, clock) as mailer:
            mailer.enqueue(mail(clock))
            await until(lambda: not mailer._tasks)
        assert (1, []) == (sink.attempts, sink.mails)
        written = "".join(capsys.readouterr())
        assert "mail rejected" in written
        assert "ada@" not in written

    async def test_server_unavailable(
        self, clock: FakeClock, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Mail to an unavailable server is retried a few times, then discarded with an error."""
        async with queue(free_port(), clock) as mailer:
            mailer.enqueue(mail(clock))

        assert "mail discarded" in "".join(capsys.readouterr())

    async def test_is_reachable(self, clock: FakeClock) -> None:
        """The health check of the mail server does not send mail."""
        sink = Sink()
        async with listening(sink) as port, queue(port, clock) as mailer:
            assert await mailer.is_reachable()
        async with queue(free_port(), clock) as mailer:
            with pytest.raises(aiosmtplib.SMTPConnectError):
                await mailer.is_reachable()

        assert 0 == sink.attempts

    async def test_late(self, clock: FakeClock) -> None:
        """A mail whose link has expired is not sent."""
        sink = Sink()
        old = mail(clock)
        clock.advance(timedelta(minutes=10))
        async with listening(sink) as port, queue(port, clock) as mailer:
            mailer.enqueue(old)

        assert 0 == sink.attempts

    async def test_full(self, clock: FakeClock) -> None:
        """A full queue rejects the next mail."""
        async with listening(Sink()) as port, queue(port, clock, capacity=2) as mailer:
            mailer.enqueue(mail(clock, "one@example.org"))
            mailer.enqueue(mail(clock, "two@example.org"))

            with pytest.raises(UnavailableError):
                mailer.enqueue(mail(clock, "three@example.org"))


class TestFairness:
    """A delay of one recipient or domain does not delay other mail."""

    async def test_greylisting(self, clock: FakeClock) -> None:
        """Recipients with temporary failures wait without holding a connection.

        Source:
            RFC 6647, section 2.
        """
        sink = Sink(per_recipient=lambda to: "451 later" if "grey" in to else "250 ok")
        async with listening(sink) as port:
            mailer = queue(port, clock, pauses=(3600.0,))
            for number in range(2 * CONNECTIONS):
                mailer.enqueue(mail(clock, f"grey{number}@example.org"))
            mailer.enqueue(mail(clock))
            await until(lambda: sink.recipients == {"ada@example.org"})
            await stopped(mailer)

    async def test_hanging_domain(self, clock: FakeClock) -> None:
        """A domain whose mail hangs leaves connections for the others."""
        sink = Sink()
        async with listening(sink) as port:
            mailer = queue(port, clock)
            for number in range(2 * CONNECTIONS):
                mailer.enqueue(mail(clock, f"ada{number}@hang.example.org"))
            await sink.hanging.wait()
            mailer.enqueue(mail(clock))
            await until(lambda: sink.recipients == {"ada@example.org"})
            await stopped(mailer)

    async def test_room(self, clock: FakeClock) -> None:
        """One domain cannot use the whole capacity while mail to another one is waiting."""
        mailer = queue(free_port(), clock, capacity=10, pauses=(3600.0,))
        mailer.enqueue(mail(clock))
        for number in range(5):
            mailer.enqueue(mail(clock, f"ada{number}@busy.example.org"))

        with pytest.raises(UnavailableError):
            mailer.enqueue(mail(clock, "one-more@busy.example.org"))
        mailer.enqueue(mail(clock, "bob@example.org"))
        await stopped(mailer)

    async def test_newer_mail_replaces(self, clock: FakeClock) -> None:
        """A waiting mail is replaced by a newer one to the same recipient, with the valid link."""
        sink = Sink("451 later")
        async with listening(sink) as port:
            mailer = queue(port, clock, pauses=(3600.0,))
            mailer.enqueue(replace(mail(clock), subject="older"))
            await until(lambda: sink.attempts == 1)
            mailer.enqueue(replace(mail(clock), subject="newer"))
            await until(lambda: bool(sink.mails))
            await stopped(mailer)

        assert ["newer"] == [found["Subject"] for found in sink.mails]

    async def test_failure_of_one(
        self, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """An unexpected failure of a mail is reported and counted; the next one is sent."""

        def fail_once(mail: Mail, *rest: Any) -> EmailMessage:
            monkeypatch.setattr(module, "compose", compose)
            raise RuntimeError("injected")

        monkeypatch.setattr(module, "compose", fail_once)
        before = failures()
        sink = Sink()
        async with listening(sink) as port, queue(port, clock) as mailer:
            mailer.enqueue(mail(clock, "bad@example.org"))
            mailer.enqueue(mail(clock))

        assert {"ada@example.org"} == sink.recipients
        assert before + 1 == failures()
        assert "mail failed" in "".join(capsys.readouterr())


class TestRefusedForGood:
    """A permanent failure is not retried, nor reported as unavailability."""

    @pytest.mark.parametrize("code", ["550", "553", "571"])
    async def test_recipient(
        self, clock: FakeClock, capsys: pytest.CaptureFixture[str], code: str
    ) -> None:
        """A permanently rejected recipient is not retried.

        Source:
            RFC 5321, section 4.2.1.
        """
        asked: list[str] = []

        def refuse(to: str) -> str:
            asked.append(to)
            return f"{code} no"

        sink = Sink(per_recipient=refuse)
        async with listening(sink) as port, queue(port, clock) as mailer:
            mailer.enqueue(mail(clock))

        assert ["ada@example.org"] == asked
        assert "unavailable" not in "".join(capsys.readouterr())

    async def test_no_smtputf8(self, clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
        """A mailbox beyond ASCII is discarded at once if the server lacks SMTPUTF8.

        Source:
            RFC 6531, section 3.1.
        """
        sink = Sink()
        async with (
            listening(sink, enable_SMTPUTF8=False) as port,
            queue(port, clock, pauses=(3600.0,)) as mailer,
        ):
            mailer.enqueue(mail(clock, "josé@example.org"))

        written = "".join(capsys.readouterr())
        assert "lacks an extension" in written
        assert "unavailable" not in written
        assert "josé" not in written

    async def test_domain_beyond_ascii(self, clock: FakeClock) -> None:
        """A domain beyond ASCII needs no extension: it is sent in its ASCII form (RFC 5890)."""
        sink = Sink()
        async with listening(sink, enable_SMTPUTF8=False) as port, queue(port, clock) as mailer:
            mailer.enqueue(mail(clock, "ada@universität.example.org"))

        assert {"ada@xn--universitt-y5a.example.org"} == sink.recipients
