"""Letters by SMTP: taken into a bounded queue, sent outside of the request that wrote them."""

import asyncio
import contextlib
from email.message import EmailMessage

import aiosmtplib
import structlog

from auth_svc.mail.smtp import SmtpServer, compose
from auth_svc.metrics import MAILS, WAITING
from auth_svc.ports import Clock, Mail
from mesh.chassis.errors import UnavailableError
from mesh.chassis.telemetry import names, tracing

log = structlog.get_logger("mail")

WORKERS = 4
CAPACITY = 500
SEND_SECONDS = 20.0
DRAIN_SECONDS = 5.0
OUTBOX = "outbox"
"""What the mail server is called in the topology."""
PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Between attempts; a letter whose link has ended is given up before."""


class MailQueue:
    """Sends letters in the background; ``async with`` starts it and lets it finish."""

    def __init__(
        self,
        server: SmtpServer,
        sender: str,
        clock: Clock,
        *,
        capacity: int = CAPACITY,
        pauses: tuple[float, ...] = PAUSES_SECONDS,
    ) -> None:
        self._server = server
        self._sender = sender
        self._clock = clock
        self._pauses = pauses
        self._queue: asyncio.Queue[tuple[Mail, str]] = asyncio.Queue(capacity)
        self._workers: list[asyncio.Task[None]] = []

    def post(self, letter: Mail) -> None:
        """Take *letter*.

        Raises:
            UnavailableError: As many letters wait as may.
        """
        try:
            self._queue.put_nowait((letter, tracing.traceparent()))
        except asyncio.QueueFull as exc:
            MAILS.labels("refused").inc()
            raise UnavailableError("Too many mails wait to be sent; try again later.") from exc
        WAITING.set(self._queue.qsize())

    async def __aenter__(self) -> "MailQueue":
        self._workers = [asyncio.create_task(self._work()) for _ in range(WORKERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._queue.join()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        if not self._queue.empty():
            log.error("mails lost", count=self._queue.qsize(), reason="stopped before they went")

    async def _work(self) -> None:
        while True:
            letter, traceparent = await self._queue.get()
            # Its lines and spans belong to the request that wrote it.
            tracing.resume(traceparent)
            try:
                outcome = await self._deliver(letter)
                MAILS.labels(outcome).inc()
            except Exception as exc:
                # Its text may hold the address, so only its kind is told.
                log.error("mail failed", fault=type(exc).__name__)  # noqa: TRY400
                MAILS.labels("failed").inc()
            finally:
                self._queue.task_done()
                WAITING.set(self._queue.qsize())

    async def _deliver(self, letter: Mail) -> str:
        mail = compose(letter, self._sender, self._clock)
        for attempt, pause in enumerate((0.0, *self._pauses)):
            await asyncio.sleep(pause)
            if self._clock() >= letter.useful_until:
                log.error("mail given up", reason="its link has ended", attempts=attempt)
                return "late"
            try:
                await self._send(mail)
            except aiosmtplib.SMTPResponseException as exc:
                log.warning("mail not taken", code=exc.code, attempt=attempt)
                if exc.code >= 500:
                    return "refused"
            except aiosmtplib.SMTPRecipientsRefused as exc:
                codes = [refusal.code for refusal in exc.recipients]
                log.warning("recipient not taken", codes=codes, attempt=attempt)
                if any(code >= 500 for code in codes):
                    return "refused"
            except (aiosmtplib.SMTPException, OSError) as exc:
                log.warning("mail server away", fault=type(exc).__name__, attempt=attempt)
            else:
                log.info("mail sent", attempt=attempt)
                return "sent"
        log.error("mail given up", reason="the mail server is away", attempts=len(self._pauses) + 1)
        return "failed"

    async def _send(self, mail: EmailMessage) -> None:
        server = self._server
        facts = {names.PEER: OUTBOX, names.SERVER_ADDRESS: server.host}
        with tracing.client("send mail", facts):
            await aiosmtplib.send(
                mail,
                hostname=server.host,
                port=server.port,
                use_tls=server.tls,
                start_tls=server.starttls,
                username=server.username,
                password=server.password,
                timeout=SEND_SECONDS,
            )
