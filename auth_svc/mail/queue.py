"""The bounded queue that sends mail over SMTP, outside the request that wrote it."""

import asyncio
import contextlib
import ssl
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from email.message import EmailMessage
from functools import partial

import aiosmtplib
import structlog

from auth_svc.mail.smtp import SmtpServer, compose
from auth_svc.metrics import MAILS, WAITING
from auth_svc.ports import Clock, Mail
from mesh.chassis.errors import UnavailableError
from mesh.chassis.telemetry import tracing

log = structlog.get_logger("mail")

CAPACITY = 1_000
"""Capacity of the queue, in mails."""
DOMAIN_SHARE = 0.5
"""The share of the capacity that one domain may use while mail to others is waiting."""
CONNECTIONS = 32
"""The number of mails sent concurrently."""
CONNECTIONS_PER_DOMAIN = 16
"""The same per recipient domain, so that a slow one leaves room for the others."""
SEND_SECONDS = 20.0
DRAIN_SECONDS = 5.0
LACKING = {aiosmtplib.SMTPException, aiosmtplib.SMTPNotSupported}
"""Raised by the library if a server lacks STARTTLS, AUTH or SMTPUTF8: retrying does not help."""
OUTBOX = "outbox"
"""The name of the mail server in the topology."""
PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Pauses between attempts; a mail whose link has expired is discarded earlier."""


class MailQueue:
    """
    Sends mail in the background; ``async with`` drains the queue at the end.

    Each mail has its own retry schedule and uses a connection only while it is sent, and each
    domain has a share of connections and capacity. A slow recipient or domain therefore does not
    delay other mail.
    """

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
        self._capacity = capacity
        self._pauses = pauses
        self._tasks: dict[asyncio.Task[None], Mail] = {}
        self._idle: dict[str, asyncio.Task[None]] = {}
        """The waiting mail of each recipient, not yet being sent."""
        self._sent_at = float("-inf")
        self._connections = asyncio.Semaphore(CONNECTIONS)
        self._of_domain: defaultdict[str, asyncio.Semaphore] = defaultdict(
            partial(asyncio.Semaphore, CONNECTIONS_PER_DOMAIN)
        )

    def enqueue(self, mail: Mail) -> None:
        """
        Accept *mail*, replacing a waiting mail to the same recipient.

        Raises:
            UnavailableError: The queue, or the share of the mail's domain, is full.
        """
        earlier = self._idle.pop(mail.to, None)
        if earlier is not None:
            # Its link is invalid: a newer link replaces it.
            earlier.cancel()
            MAILS.labels("replaced").inc()
        elif self._is_full_for(_domain(mail)):
            MAILS.labels("refused").inc()
            raise UnavailableError("Too many mails are waiting to be sent; try again later.")
        task = asyncio.create_task(self._process(mail), name="send mail")
        self._tasks[task] = mail
        task.add_done_callback(self._finished)
        WAITING.set(len(self._tasks))

    async def is_reachable(self) -> bool:
        """Return whether the mail server accepts connections, or has just accepted a mail."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._sent_at < SEND_SECONDS:
            return True
        async with self._connected():
            return True

    async def __aenter__(self) -> "MailQueue":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_SECONDS)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if left:
            log.error("mail lost", count=len(left), reason="stopped before they were sent")

    def _is_full_for(self, domain: str) -> bool:
        if len(self._tasks) >= self._capacity:
            return True
        share = Counter(_domain(mail) for mail in self._tasks.values())
        return len(share) > 1 and share[domain] >= self._capacity * DOMAIN_SHARE

    def _finished(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        WAITING.set(len(self._tasks))

    async def _process(self, mail: Mail) -> None:
        task = asyncio.current_task()
        try:
            outcome = await self._deliver(mail)
            MAILS.labels(outcome).inc()
        except Exception as exc:
            # The exception's text may contain the address, so only its type is logged.
            log.error("mail failed", fault=type(exc).__name__)  # noqa: TRY400
            MAILS.labels("failed").inc()
        finally:
            if self._idle.get(mail.to) is task:
                del self._idle[mail.to]

    async def _deliver(self, mail: Mail) -> str:
        message = compose(mail, self._sender, self._clock)
        for attempt, pause in enumerate((0.0, *self._pauses)):
            async with self._turn(mail, pause):
                if self._clock() >= mail.useful_until:
                    log.error("mail discarded", reason="its link has expired", attempts=attempt)
                    return "late"
                outcome = await self._attempt(message, attempt)
            if outcome:
                return outcome
        attempts = len(self._pauses) + 1
        log.error("mail discarded", reason="the mail server did not accept it", attempts=attempts)
        return "failed"

    @contextlib.asynccontextmanager
    async def _turn(self, mail: Mail, pause: float) -> AsyncIterator[None]:
        """Wait *pause* seconds, then for a connection slot; a newer mail may replace it before."""
        task = asyncio.current_task()
        if task is not None:
            self._idle[mail.to] = task
        await asyncio.sleep(pause)
        async with self._of_domain[_domain(mail)], self._connections:
            if self._idle.get(mail.to) is task:
                del self._idle[mail.to]
            yield

    async def _attempt(self, message: EmailMessage, attempt: int) -> str:
        """Send once; return the outcome, empty if another attempt may succeed."""
        try:
            await self._send(message)
        except aiosmtplib.SMTPResponseException as exc:
            log.warning("mail rejected", code=exc.code, attempt=attempt)
            return "refused" if exc.code >= 500 else ""
        except aiosmtplib.SMTPRecipientsRefused as exc:
            codes = [refused.code for refused in exc.recipients]
            log.warning("recipient rejected", codes=codes, attempt=attempt)
            return "refused" if any(code >= 500 for code in codes) else ""
        except ssl.SSLCertVerificationError as exc:
            # An operator may install another certificate while the link is valid.
            reason = f"{self._server.host}: {exc.verify_message}"
            log.error("mail server certificate rejected", reason=reason, attempt=attempt)  # noqa: TRY400
            return ""
        except (aiosmtplib.SMTPException, OSError) as exc:
            if type(exc) in LACKING:
                log.error("mail server lacks an extension", reason=str(exc))  # noqa: TRY400
                return "refused"
            log.warning("mail server unavailable", fault=type(exc).__name__, attempt=attempt)
            return ""
        log.info("mail sent", attempt=attempt)
        return "sent"

    async def _send(self, message: EmailMessage) -> None:
        server = tracing.peer(OUTBOX, self._server.host, self._server.port)
        with tracing.client("send mail", server):
            async with self._connected() as connection:
                await connection.send_message(message)
        self._sent_at = asyncio.get_running_loop().time()

    def _connected(self) -> aiosmtplib.SMTP:
        server = self._server
        verified = server.starttls != "opportunistic"
        return aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.tls,
            start_tls={"required": True, "opportunistic": None, "never": False}[server.starttls],
            validate_certs=verified,
            cert_bundle=str(server.ca_file) if server.ca_file and verified else None,
            username=server.username,
            password=server.password,
            timeout=SEND_SECONDS,
        )


def _domain(mail: Mail) -> str:
    return mail.to.rpartition("@")[2]
