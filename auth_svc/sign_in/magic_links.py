"""Rules of signing in by magic link."""

import asyncio
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

import structlog

from auth_svc.errors import InvalidCredentialsError
from auth_svc.hashing import digest, link_handle
from auth_svc.mail.sign_in_mail import sign_in_mail
from auth_svc.metrics import OPENED_BY_LINK
from auth_svc.ports import Clock, Contacts, Directory, Link, Links, Mailer, OpenedSession
from auth_svc.sign_in.addresses import AllowedDomains
from auth_svc.sign_in.rate_limits import RateLimits
from mesh.chassis import call
from mesh.chassis.errors import UnavailableError
from mesh.chassis.telemetry import pseudonym

log = structlog.get_logger("signin")

DIRECTORY_SHARE = 0.8
"""Share of the remaining time for the directory to open a session; the rest restores the link."""


@dataclass(frozen=True)
class LinkRules:
    """Policy of links: allowed addresses, target URL, lifetime and number of attempts."""

    domains: AllowedDomains
    url: str
    lifetime: timedelta = timedelta(minutes=10)
    tries: int = 5


class SignIn:
    """Sends magic links and opens sessions from them."""

    def __init__(
        self,
        rules: LinkRules,
        clock: Clock,
        *,
        directory: Directory,
        links: Links,
        limits: RateLimits,
        contacts: Contacts,
        mailer: Mailer,
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._directory = directory
        self._links = links
        self._limits = limits
        self._contacts = contacts
        self._mailer = mailer

    async def sign_up(self, email: str, *, client: str, language: str) -> datetime:
        """Send a link to *email*; return once the mail is queued.

        Every address is looked up in REDCap, even one that the directory has, so that neither
        latency nor errors reveal whether the address is known.

        Raises:
            InvalidEmailError: The address must not receive a link.
            RateLimitedError: Too many links were requested.
            UnavailableError: REDCap, the directory or the mail queue is unavailable.
        """
        address = self._rules.domains.parse(email)
        await self._limits.count_link_request(address, client)
        known_as = await self._contacts.find(address)
        invitation = await self._directory.invite(
            address, new_id=known_as or secrets.token_hex(10), language=language
        )
        now = self._clock()
        user = invitation.user
        link = Link(
            handle=link_handle(user.id),
            user_id=user.id,
            digest=digest(invitation.secret),
            expires_at=now + self._rules.lifetime,
        )
        await self._links.put(link)
        if not invitation.mailed:
            mail = sign_in_mail(
                user.email,
                self._url(link, invitation.secret),
                language=language,
                lifetime=self._rules.lifetime,
                expires_at=link.expires_at,
            )
            self._mailer.enqueue(mail)
        log.info("link created", user=pseudonym(user.id))
        return now

    async def log_in(
        self, handle: str, secret: str, *, client: str, user_agent: str
    ) -> OpenedSession:
        """Open a session from the two parts of a link.

        Raises:
            InvalidCredentialsError: The link is unknown, used, replaced or expired.
            RateLimitedError: Too many attempts by this client.
            MeshError: The directory failed; the link can be used again, unless the directory has
                consumed it.
        """
        await self._limits.count_login_attempt(client)
        name, shown = handle.lower(), digest(secret.lower())
        user_id = await self._links.consume(name, shown, now=self._clock(), tries=self._rules.tries)
        if user_id is None:
            raise InvalidCredentialsError
        left = call.remaining_seconds()
        try:
            async with asyncio.timeout(None if left is None else left * DIRECTORY_SHARE):
                opened = await self._directory.open_session(
                    user_id, secret.lower(), user_agent=user_agent
                )
        except InvalidCredentialsError:
            raise
        except BaseException as exc:
            # Also if the caller hangs up: nobody has received a session.
            await asyncio.shield(self._links.restore(name, shown))
            if isinstance(exc, TimeoutError):
                raise UnavailableError("The identity provider did not respond in time.") from exc
            raise
        OPENED_BY_LINK.inc()
        log.info("session opened", user=pseudonym(user_id))
        return opened

    def _url(self, link: Link, secret: str) -> str:
        return f"{self._rules.url}?{urlencode({'userId': link.handle, 'secret': secret})}"
