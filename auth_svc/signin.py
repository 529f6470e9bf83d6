"""The rules of signing in by magic link: who gets one, and what makes it a session."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

import structlog
from prometheus_client import Counter

from auth_svc.addresses import AllowedDomains
from auth_svc.errors import InvalidCredentialsError
from auth_svc.letters import link_letter
from auth_svc.limits import Limits
from auth_svc.ports import Clock, Contacts, Directory, Link, Links, Mailer, OpenedSession
from mesh.chassis.errors import UnavailableError
from mesh.chassis.telemetry import pseudonym

log = structlog.get_logger("signin")

SESSIONS = Counter("amarre_auth_sessions", "Sessions, by what became of them.", ["event"])
BY_LINK, BY_PASSKEY = SESSIONS.labels("opened_by_link"), SESSIONS.labels("opened_by_passkey")
ENDED, ALL_ENDED = SESSIONS.labels("ended"), SESSIONS.labels("all_ended")
"""Made at once, so that each is 0 before the first: Prometheus sees no rise from nothing."""

_HEXADECIMAL = re.compile(r"[0-9a-fA-F]+")


@dataclass(frozen=True)
class LinkRules:
    """Who may have a link, where it leads, how long it works and how often it may be tried."""

    domains: AllowedDomains
    url: str
    lifetime: timedelta = timedelta(minutes=10)
    tries: int = 5


class SignIn:
    """Mails magic links and opens sessions from them."""

    def __init__(
        self,
        rules: LinkRules,
        clock: Clock,
        *,
        directory: Directory,
        links: Links,
        limits: Limits,
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
        """
        Mail a link to *email*; returns when the wish was taken.

        REDCap is asked about every address, also one that the directory knows: so the time
        that an answer takes, and whether there is one, tell nothing about the address.

        Raises:
            InvalidEmailError: The address may have no link.
            RateLimitedError: Too many links were asked for.
            UnavailableError: REDCap, the directory or the mail cannot take it at the moment.
        """
        address = self._rules.domains.parse(email)
        await self._limits.before_link(address, client)
        known_as = await self._contacts.find(address)
        invitation = await self._directory.invite(
            address, new_id=known_as or secrets.token_hex(10), language=language
        )
        now = self._clock()
        user = invitation.user
        link = Link(
            handle=handle(user.id),
            user_id=user.id,
            digest=digest(invitation.secret),
            expires_at=now + self._rules.lifetime,
        )
        await self._links.put(link)
        if not invitation.mailed:
            letter = link_letter(
                user.email,
                self._url(link, invitation.secret),
                language=language,
                lifetime=self._rules.lifetime,
                expires_at=link.expires_at,
            )
            self._mailer.post(letter)
        log.info("link made", user=pseudonym(user.id))
        return now

    async def log_in(
        self, link_handle: str, secret: str, *, client: str, user_agent: str
    ) -> OpenedSession:
        """
        Open a session from the two parts of a link.

        Raises:
            InvalidCredentialsError: The link is unknown, used, replaced or too old.
            RateLimitedError: This client tried too often.
            UnavailableError: The directory cannot be asked; the link still works.
        """
        await self._limits.before_log_in(client)
        name, shown = link_handle.lower(), digest(secret.lower())
        user_id = await self._links.take(name, shown, now=self._clock(), tries=self._rules.tries)
        if user_id is None:
            raise InvalidCredentialsError
        try:
            opened = await self._directory.open_session(
                user_id, secret.lower(), user_agent=user_agent
            )
        except UnavailableError:
            await self._links.give_back(name, shown)
            raise
        BY_LINK.inc()
        log.info("session opened", user=pseudonym(user_id))
        return opened

    def _url(self, link: Link, secret: str) -> str:
        return f"{self._rules.url}?{urlencode({'userId': link.handle, 'secret': secret})}"


def digest(secret: str) -> bytes:
    """Return what is kept of a secret; secrets have 256 bits, so that no salt is needed."""
    return hashlib.sha256(secret.encode()).digest()


def handle(user_id: str) -> str:
    """
    Return what names the user in a link, where the contract wants hexadecimal.

    That is the id itself, or a digest of an id that REDCap has in another form.
    """
    if _HEXADECIMAL.fullmatch(user_id):
        return user_id.lower()
    return hashlib.sha256(user_id.encode()).hexdigest()[:32]
