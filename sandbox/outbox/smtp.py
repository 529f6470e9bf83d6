"""The SMTP server: accepts mail for any recipient and delivers none."""

import asyncio
import sqlite3
import ssl
from datetime import UTC, datetime
from email import message_from_bytes, policy
from typing import Any

import structlog
from aiosmtpd.smtp import SMTP

from sandbox.outbox.messages import read
from sandbox.outbox.store import Store

log = structlog.get_logger("smtp")

MOST_BYTES = 1024 * 1024


class Sink:
    """Stores each mail; the handler that aiosmtpd calls."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Store one mail."""
        mail = message_from_bytes(envelope.content, policy=policy.default)
        try:
            self._store.add(read(mail, envelope.rcpt_tos, datetime.now(UTC)))
        except (LookupError, ValueError):
            log.warning("mail rejected", reason="its text cannot be read")
            return "554 The text of this mail cannot be read"
        except sqlite3.Error as exc:
            # A temporary error, so that the sender retries (RFC 5321, section 4.2.3).
            log.error("storing mail failed", reason=str(exc))  # noqa: TRY400 - one sentence, without a traceback
            return "452 The outbox cannot write its file; try again later"
        log.info("mail stored", bytes=len(envelope.content))
        return "250 Kept in the outbox"


async def listen(
    store: Store, host: str, port: int, *, tls: ssl.SSLContext | None = None
) -> asyncio.Server:
    """Start accepting mail.

    Args:
        store: Stores the mail.
        host: The address to bind.
        port: The port to bind.
        tls: Offers STARTTLS and requires it (RFC 3207); None for plain text.

    Raises:
        OSError: The address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    return await loop.create_server(
        lambda: SMTP(
            Sink(store),
            data_size_limit=MOST_BYTES,
            enable_SMTPUTF8=True,
            hostname="outbox",
            ident="AMARRE outbox",
            loop=loop,
            tls_context=tls,
            require_starttls=tls is not None,
        ),
        host,
        port,
    )
